"""The benchmarks whose questions are about clips: VLMEvalKit's data sets and upstream's MVBench."""

from collections.abc import Iterator

from paddle_internvl.evaluation.benchmark import Benchmark, UpstreamTask

_MVBENCH = UpstreamTask("mvbench", "MVBench", "mvbench", 1, 1000, reader="mvbench")


def _mvbench(name: str, frames: int, file: str = "MVBench.tsv", **columns) -> Benchmark:
    """A row of MVBench: 20 tasks of 200 questions."""
    scorers = {"vlmevalkit": "mvbench", "internvl": "internvl_mvbench"}
    return Benchmark(
        name, "VIDEO", 1, scorers, judge="choice", rows=4000, file=file, video="mvbench", frames=frames,
        upstream=_MVBENCH, **columns,
    )  # fmt: skip


def _video_mme(name: str, frames: int, cards: bool = False) -> Iterator[Benchmark]:
    """The two rows of Video-MME with a number of frames: without and with subtitles."""
    for subtitles in (False, True):
        column = f"Video-MME {'w' if subtitles else 'w/o'} subs"
        yield Benchmark(
            f"{name}{'_subs' if subtitles else ''}", "VIDEO", 1, {"vlmevalkit": "video_mme"},
            judge="choice", rows=2700, file="Video-MME.tsv", video="video_mme", frames=frames, subtitles=subtitles,
            cards={"internvl2": column} if cards else {}, headline="overall",
        )  # fmt: skip


def _mmbench_video(name: str, frames: int, card: str | None = None) -> Benchmark:
    """A row of MMBench-Video with a number of frames, one question at a time."""
    return Benchmark(
        name, "VIDEO", 1, {"vlmevalkit": "mmbench_video"}, judge="mmbench_video",
        file="MMBench-Video.tsv", video="mmbench_video", frames=frames, cards={"internvl2": card} if card else {},
        headline="coarse_all Overall",
    )  # fmt: skip


VIDEO_BENCHMARKS = (
    _mvbench("MVBench", 16, cards={"internvl2": "MVBench"}),
    *(_mvbench(f"MVBench_{frames}frame", frames) for frames in (8, 16, 64)),
    _mvbench("MVBench_MP4_8frame", 8, "MVBench_MP4.tsv"),
    *_video_mme("Video-MME", 16, cards=True),
    *_video_mme("Video-MME_8frame", 8),
    *_video_mme("Video-MME_16frame", 16, cards=True),
    *_video_mme("Video-MME_64frame", 64),
    _mmbench_video("MMBench-Video", 8, "MMBench-Video 8f"),
    _mmbench_video("MMBench_Video_8frame_nopack", 8, "MMBench-Video 8f"),
    _mmbench_video("MMBench_Video_16frame_nopack", 16, "MMBench-Video 16f"),
    _mmbench_video("MMBench_Video_64frame_nopack", 64),
)
