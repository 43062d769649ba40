"""Answer the questions of benchmarks, and score the answers.

MODEL is a checkpoint folder or hub id, or the URL of an OpenAI-compatible server. The files of the benchmarks lie in
--data-root under VLMEvalKit's names, or are named: --data MMStar=/data/MMStar.tsv. WORK_DIR/MODEL/ gets, per benchmark,
MODEL_NAME.jsonl (a line for each answered row, with prompt and answer), MODEL_NAME.tsv (VLMEvalKit's table of
predictions) and MODEL_NAME.score.json. A run that ended is continued: rows with an answer are not asked again. Exit
code 1 if rows failed.

examples:
  paddle-internvl eval run CKPT --data MMBench_DEV_EN_V11 MMStar HallusionBench AI2D_TEST OCRBench
  paddle-internvl eval run CKPT-MPO --data MMStar --style MPO
  paddle-internvl eval run CKPT --data MMMU_DEV_VAL --thinking --use-cot
  paddle-internvl eval run CKPT --data MMStar OCRBench --dry-run
  paddle-internvl eval run CKPT --data MMStar --workers 8 --ray-address auto
  python -m paddle.distributed.launch --nproc_per_node 2 $(which paddle-internvl) eval run CKPT --data MMStar --tp 2
  paddle-internvl eval run http://127.0.0.1:23333/v1 --data MMMU_DEV_VAL --concurrency 32
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

from convert.command_line import EXIT_DIFFERENT, EXIT_OK
from paddle_internvl.cli.argument_types import integer
from paddle_internvl.cli.conventions import (
    add_adapter_flag,
    add_hub_flag,
    add_quantization_flag,
    add_workers_flags,
    require_workers,
)
from paddle_internvl.cli.eval_score import score_lines
from paddle_internvl.cli.judge_flags import add_judge_flags, judge_of
from paddle_internvl.engine.config import quantization_options
from paddle_internvl.evaluation.benchmark import RULES, STYLES
from paddle_internvl.evaluation.chats import is_endpoint
from paddle_internvl.progress import bar

_SHOWN_FAILURES = 3
_OPTIONS = (  # of `evaluate`
    "data_root", "work_dir", "name", "limit", "benchmarks", "reuse", "overwrite", "concurrency", "workers",
    "ray_address",
)  # fmt: skip
_BACKEND = ("adapter", "dtype", "device", "max_batch_size")  # of the `EngineConfig`


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="checkpoint folder, hub id, URL of a server, or env")
    add_adapter_flag(parser)
    add_hub_flag(parser)
    parser.add_argument(
        "--data", nargs="+", required=True, metavar="NAME[=PATH]", help="benchmarks, as `eval list` names them"
    )
    parser.add_argument(
        "--data-root", type=Path, metavar="DIR", help="of the files (default: $LMUData, else ~/LMUData)"
    )
    parser.add_argument("--work-dir", type=Path, default=Path("outputs"), metavar="DIR", help="(default: outputs)")
    parser.add_argument("--name", metavar="NAME", help="of the model in the files (default: MODEL's last part)")
    parser.add_argument(
        "--style", choices=STYLES, default="InternVL2_5",
        help="family whose prompts are sent; MPO: chain of thought where the MPO cards have it; "
        "Thinking: thoughts before the answer, sampled (default: InternVL2_5)",
    )  # fmt: skip
    parser.add_argument("--thinking", dest="style", action="store_const", const="Thinking", help="--style Thinking")
    parser.add_argument(
        "--rules",
        choices=RULES,
        help="of prompts and scores (default: by the data's format)",
    )
    parser.add_argument("--benchmarks", type=Path, metavar="FILE", help="YAML, JSON or Python file of more benchmarks")
    parser.add_argument("--use-cot", action="store_true", help="chain of thought everywhere, as $USE_COT=1")
    parser.add_argument("--limit", type=integer(1), metavar="N", help="first rows of each benchmark (default: all)")
    parser.add_argument(
        "--max-new-tokens", type=integer(1), metavar="N", help="limit of an answer (default: each benchmark's)"
    )
    parser.add_argument("--mode", choices=("all", "infer"), default="all", help="infer: no scores (default: all)")
    parser.add_argument("--reuse", type=Path, metavar="FILE|DIR", help="predictions of VLMEvalKit to begin with")
    parser.add_argument("--overwrite", action="store_true", help="leave the answers of earlier runs")
    parser.add_argument("--dry-run", action="store_true", help="count rows, tiles and tokens; ask nothing")
    parser.add_argument("--nframe", type=integer(1), metavar="N", help="frames of a clip (default: the benchmark's)")
    add_workers_flags(parser, "with a model each")
    parser.add_argument(
        "--tp", type=integer(1), default=1, metavar="N", help="launched processes that share the model (default: 1)"
    )
    parser.add_argument(
        "--concurrency",
        type=integer(1),
        default=32,
        metavar="N",
        help="rows asked at a time, of each worker (default: 32)",
    )
    parser.add_argument(
        "--max-batch-size", type=integer(1), default=16, metavar="N", help="answers decoded together (default: 16)"
    )
    parser.add_argument("--served-model", metavar="NAME", help="model of the server (default: its first)")
    parser.add_argument("--key", metavar="KEY", help="API key of the server (default: $OPENAI_API_KEY)")
    parser.add_argument("--device", help="cpu or gpu (default: gpu where there is one)")
    add_quantization_flag(parser)
    parser.add_argument("--dtype", default="auto", help="bfloat16, float16 or float32 (default: the best there is)")
    parser.add_argument("--json", action="store_true", help="print one JSON document: the scores of each benchmark")
    parser.add_argument(
        "--answer-tokens", type=integer(1), default=16, metavar="N", help="of the dry run's estimate (default: 16)"
    )
    add_judge_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    from paddle_internvl.evaluation.run import AskSettings
    from paddle_internvl.evaluation.suite import evaluate

    require_workers(arguments)
    chain_of_thought = arguments.use_cot or os.environ.get("USE_COT") == "1"
    settings = AskSettings(
        arguments.style, arguments.rules, chain_of_thought, arguments.max_new_tokens, arguments.nframe
    )
    options = {name: getattr(arguments, name) for name in _OPTIONS}
    backend = {name: getattr(arguments, name) for name in _BACKEND}
    backend |= quantization_options(arguments)
    if arguments.dry_run:
        from paddle_internvl.cli.eval_dry_run import show_workloads

        return show_workloads(arguments, settings)
    with judge_of(arguments) as judge, _Bars() as bars:

        def evaluated(model) -> dict[str, dict]:
            return evaluate(
                model, arguments.data, **options, settings=settings, scored=arguments.mode == "all", judge=judge,
                on_progress=bars.update, endpoint={"model": arguments.served_model, "key": arguments.key}, **backend,
            )  # fmt: skip

        documents = evaluated(arguments.model) if arguments.tp == 1 else _tensor_parallel(arguments, evaluated)
    if documents is None:  # of a rank that computes for rank 0
        return EXIT_OK
    if arguments.json:
        print(json.dumps(documents, ensure_ascii=False, indent=2))
    else:
        print("\n".join(line for document in documents.values() for line in _lines(document)))
    return EXIT_DIFFERENT if any(document["failures"] for document in documents.values()) else EXIT_OK


def _tensor_parallel(arguments: argparse.Namespace, evaluated: Callable[[object], dict]) -> dict | None:
    """Evaluate a model that is split among the launched processes; None on all ranks but the first."""
    from paddle_internvl import run_rank, startup
    from paddle_internvl.checkpoints.folder_checks import chat_folder
    from paddle_internvl.engine.config import EngineConfig

    if is_endpoint(arguments.model) or arguments.workers:
        raise ValueError("--tp splits a checkpoint in this process; leave out --workers, or the server's URL")
    folder = chat_folder(arguments.model)
    startup.import_paddle()
    from paddlenlp.transformers import AutoModel

    from paddle_internvl.chat.pipeline import Pipeline
    from paddle_internvl.evaluation.chat_checkpoint import ChatCheckpoint

    model = AutoModel.from_pretrained(
        str(folder), dtype=None if arguments.dtype == "auto" else arguments.dtype, device=arguments.device,
        tensor_parallel_degree=arguments.tp, adapter=arguments.adapter,
        **quantization_options(arguments),
    )  # fmt: skip

    def main(model) -> dict:
        with Pipeline(model, EngineConfig(max_batch_size=arguments.max_batch_size)) as pipe:
            return evaluated(ChatCheckpoint(pipe, arguments.name or Path(folder).name))

    return run_rank(model, main)


class _Bars:
    """A progress bar for each benchmark."""

    def __enter__(self) -> _Bars:
        self._bar, self._name = None, None
        return self

    def update(self, name: str, counts) -> None:
        if name != self._name:
            self._close()
            self._bar, self._name = bar(name, counts.total, "row", delay=0), name
            self._bar.initial = counts.done
        self._bar.n = counts.done
        self._bar.set_postfix(failed=len(counts.failures), cut=counts.cut)

    def __exit__(self, *_exception) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _lines(document: dict) -> list[str]:
    """Scores and failures of a benchmark for people."""
    failures = document["failures"]
    counts = f"{document['benchmark']}: {document['scored']} of {document['expected']} rows answered"
    lines = score_lines(document) if "scores" in document else [counts]
    lines += [f"row {index} failed: {reason}" for index, reason in list(failures.items())[:_SHOWN_FAILURES]]
    return lines + ([f"{len(failures)} rows failed; the same command asks them again"] if failures else [])
