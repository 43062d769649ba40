"""BENCHMARKS: one row per benchmark of the model cards."""

from paddle_internvl.evaluation.benchmark import Benchmark, UpstreamTask
from paddle_internvl.evaluation.picture_benchmarks import PICTURE_BENCHMARKS
from paddle_internvl.evaluation.video_benchmarks import VIDEO_BENCHMARKS

__all__ = ["BENCHMARKS", "Benchmark", "UpstreamTask"]

# Made by `demo.tiny.benchmark` for the bundled checkpoint.
_TINY = Benchmark("Tiny_DEV", "VQA", 6, {"vlmevalkit": "exact"}, file="Tiny_DEV.tsv", max_new_tokens=96)

BENCHMARKS: dict[str, Benchmark] = {row.name: row for row in (*PICTURE_BENCHMARKS, *VIDEO_BENCHMARKS, _TINY)}
