"""Write <benchmark>/scores.json: what VLMEvalKit makes of invented rows with awkward answers.

    python -m tests.goldens.evaluation.make_vlmevalkit_scores --vlmevalkit CHECKOUT

CHECKOUT is a work tree of https://github.com/open-compass/VLMEvalKit at 00e0cf87 (2024-12-26). Needs `pandas==2.3.3
numpy openpyxl validators requests tqdm pillow portalocker tabulate`; packages that the scores do not need are stubs.
Only empty cells are missing values: the frames stay in memory and never pass through xlsx files.
"""

import argparse
import importlib
import importlib.abc
import importlib.machinery
import inspect
import platform
import sys
import tempfile
import types
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from unittest.mock import MagicMock

import pandas as pd

from tests.goldens.evaluation import invented

HERE = Path(__file__).parent
STUBS = {"decord", "torch", "torchvision", "transformers", "huggingface_hub", "cv2", "sty", "moviepy", "imageio"}
PACKAGES = ("vlmeval", "vlmeval.dataset", "vlmeval.dataset.utils")  # without their __init__, which imports all models


class Stub(types.ModuleType):
    """Module whose every name is a mock."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> MagicMock:
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock(name=name)


class StubFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of STUBS."""

    def find_spec(self, name, path, target=None):
        """Spec of a stub."""
        return importlib.machinery.ModuleSpec(name, self) if name.split(".")[0] in STUBS else None

    def create_module(self, spec):
        """The stub."""
        return Stub(spec.name)

    def exec_module(self, module):
        """Nothing to run."""


class Judge:
    """The invented judge with the interface of VLMEvalKit's models."""

    fail_msg = "Failed to obtain answer via API."

    def __init__(self, pool: Sequence[str]):
        self._pool = pool

    def working(self) -> bool:
        """Whether it replies."""
        return True

    def generate(self, prompt: str, temperature: float = 0.0) -> str:
        """Its reply."""
        return invented.reply(self._pool, prompt, temperature)


class Reference:
    """VLMEvalKit's modules, whose files are frames in memory."""

    def __init__(self, checkout: Path):
        sys.meta_path.append(StubFinder())
        sys.path.insert(0, str(checkout))
        for name in PACKAGES:
            package = types.ModuleType(name)
            package.__path__ = [str(checkout / name.replace(".", "/"))]
            sys.modules[name] = package
        utils = sys.modules["vlmeval.dataset.utils"]
        utils.build_judge, utils.DEBUG_MESSAGE = None, ""
        self.files: dict[str, object] = {}

    def module(self, name: str) -> types.ModuleType:
        """A module whose load and dump use the files in memory."""
        module = importlib.import_module(f"vlmeval.dataset.{name}")
        module.load, module.dump = self.files.__getitem__, lambda value, path: self.files.__setitem__(path, value)
        return module


def frame(rows: Sequence[Mapping[str, str]], answers: Mapping[str, str]) -> pd.DataFrame:
    """Prediction table of rows: indices are integers where all are; an absent cell is missing."""
    data = pd.DataFrame([{**row, "prediction": answers[row["index"]]} for row in rows], dtype=object)
    if all(index.isdecimal() for index in data["index"]):
        data["index"] = [int(index) for index in data["index"]]
    return data.mask(data.eq("") & (data.columns != "prediction")) if "index" in data else data


def cells(table: pd.DataFrame, row: str = "split") -> dict[str, float]:
    """Cells "ROW/COLUMN" of a table, without the missing ones."""
    return {
        f"{line.get(row, 'none')}/{column}": float(value)
        for line in table.to_dict("records")
        for column, value in line.items()
        if column != row and not pd.isna(value)
    }


def choice(reference: Reference, rows: list[dict], answers: dict, judge: Judge | None, name: str) -> dict:
    """Results of multiple-choice questions; those of MMBench are circular."""
    module = reference.module("utils.multiple_choice")
    data = frame(rows, answers)
    with tempfile.TemporaryDirectory() as folder:
        result = f"{folder}/result.pkl"
        smp = importlib.import_module("vlmeval.smp")
        module.load, module.dump = smp.load, smp.dump
        evaluate = module.mcq_circular_eval if "MMBench" in name else module.mcq_vanilla_eval
        hits = evaluate(judge, data, data, 1, result, name)
    extracted = {}
    prepared = module.MMMU_preproc(frame(rows, answers)) if "MMMU" in name else frame(rows, answers)
    for _, item in prepared.iterrows():
        extracted[str(item["index"])] = module.prefetch_answer(item) or None
    table = {key: 100 * value for key, value in cells(module.report_acc(hits.copy())).items()}
    verdict = {str(index): hit for index, hit in zip(hits["index"], hits["hit"])}
    return {"table": table, "verdict": verdict} | ({} if judge else {"extracted": extracted})


def pope(reference: Reference, rows: list[dict], answers: dict, judge: Judge | None) -> dict:
    """Results of POPE."""
    module = reference.module("utils.yorn")
    data = frame(rows, answers)
    data["extracted"] = [module.YOrN_Extraction(text) for text in data["prediction"]]
    if judge:
        data["extracted"] = [
            module.YOrN_auxeval(judge, line) if line["extracted"] == "Unknown" else line["extracted"]
            for _, line in data.iterrows()
        ]
    data["score"] = data["answer"] == data["extracted"]
    reference.files["data"] = data
    by_index = data.set_index(data["index"].astype(str))
    return {
        "table": cells(module.POPE_rating("data")),
        "verdict": {index: int(score) for index, score in by_index["score"].items()},
        "extracted": by_index["extracted"].to_dict(),
    }


def ocrbench(reference: Reference, rows: list[dict], answers: dict) -> dict:
    """Results of OCRBench: the table of all rows, and the final score of each row alone."""
    module = reference.module("utils.ocrbench")

    def scores(some: list[dict]) -> dict:
        reference.files["a.xlsx"] = frame(some, answers)
        module.OCRBench_eval("a.xlsx")
        return reference.files["a_score.json"]

    table = {f"none/{key}": value for key, value in scores(rows).items()}
    return {"table": table, "verdict": {row["index"]: scores([row])["Final Score"] for row in rows}}


def mathvista(reference: Reference, rows: list[dict], answers: dict, judge: Judge | None) -> dict:
    """Results of MathVista; without a judge, all that is not prefetched has the extraction ''."""
    module = reference.module("utils.mathvista")
    data = frame(rows, answers)
    results = []
    for _, line in data.iterrows():
        fetched = module.post_check(line, prefetch=True)
        if judge is None and not fetched:
            results.append({"log": "", "res": ""})
        else:
            results.append(module.MathVista_auxeval(judge, line))
    data["res"], data["log"] = [r["res"] for r in results], [r["log"] for r in results]
    reference.files["data"] = data
    verdict = {str(line["index"]): int(module.post_check(line)) for _, line in data.iterrows()}
    return {"table": cells(module.MathVista_acc("data"), "Task&Skill"), "verdict": verdict}


def mmvet(reference: Reference, rows: list[dict], answers: dict, judge: Judge) -> dict:
    """Results of MM-Vet."""
    module = reference.module("utils.mmvet")
    data = frame(rows, answers)
    data["score"] = [module.MMVet_auxeval(judge, line)["score"] for _, line in data.iterrows()]
    reference.files["data"] = data
    table, _ = module.MMVet_acc("data")
    return {"table": cells(table, "Category"), "verdict": dict(zip(data["index"], data["score"]))}


def video(
    reference: Reference, name: str, kind: str, rows: list[dict], answers: dict, judge: Judge | None, flatten: Callable
) -> dict:
    """Results of a video benchmark by its own `evaluate`."""
    module, utils = reference.module(name), reference.module(f"utils.{name}")
    utils.load, utils.dump = module.load, module.dump
    reference.files["a.xlsx"] = frame(rows, answers)
    sys.modules["vlmeval.dataset.utils"].build_judge = module.build_judge = lambda **_: judge
    module.gpt_key_set = lambda: True
    module.osp = types.SimpleNamespace(exists=lambda path: path in reference.files, join="/".join)
    if judge and name == "mmbench_video":
        module.track_progress_rich = lambda function, tasks, keys, save, **_: reference.files.__setitem__(
            save, {key: function(task) for key, task in zip(keys, tasks)}
        )
    model = "exact_matching" if judge is None else "chatgpt-0125"
    evaluate = getattr(module, kind).evaluate  # a class method in some trees, a method in others
    table = evaluate(*(() if inspect.ismethod(evaluate) else (MagicMock(),)), "a.xlsx", model=model)
    scored = next(value for path, value in reference.files.items() if path.endswith("_score.xlsx"))
    verdict = {str(index): int(score) for index, score in zip(scored["index"], scored["score"])}
    reference.files.clear()
    return {"table": flatten(table), "verdict": verdict}


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vlmevalkit", type=Path, required=True)
    reference = Reference(parser.parse_args().vlmevalkit)
    videomme, mmb_video = reference.module("utils.videomme"), reference.module("utils.mmbench_video")
    ocr_categories = [
        "Regular Text Recognition", "Irregular Text Recognition", "Artistic Text Recognition",
        "Handwriting Recognition", "Digit String Recognition", "Non-Semantic Text Recognition",
        "Scene Text-centric VQA", "Doc-oriented VQA",
        "Key Information Extraction", "Handwritten Mathematical Expression Recognition",
    ]  # fmt: skip
    letter_judge, label_judge = Judge(invented.LETTER_REPLIES), Judge(invented.LABEL_REPLIES)

    rows = invented.choice_rows()
    answers = invented.answers(rows, invented.LETTERS)
    write("choice", rows, answers, vlmevalkit=choice(reference, rows, answers, None, "AI2D_TEST"),
          judged=choice(reference, rows, answers, letter_judge, "AI2D_TEST"))  # fmt: skip
    rows = invented.circular_rows()
    answers = invented.circular_answers(rows)
    write("circular", rows, answers, vlmevalkit=choice(reference, rows, answers, None, "MMBench_DEV_EN"),
          judged=choice(reference, rows, answers, letter_judge, "MMBench_DEV_EN"))  # fmt: skip
    rows = invented.mmmu_rows()
    answers = invented.answers(rows, invented.LETTERS + invented.OPEN)
    write("mmmu", rows, answers, vlmevalkit=choice(reference, rows, answers, None, "MMMU_DEV_VAL"))
    rows = invented.pope_rows()
    answers = invented.answers(rows, invented.LABELS)
    write("pope", rows, answers, vlmevalkit=pope(reference, rows, answers, None),
          judged=pope(reference, rows, answers, label_judge))  # fmt: skip
    rows = invented.ocrbench_rows(ocr_categories)
    answers = invented.answers(rows, invented.WORDS)
    write("ocrbench", rows, answers, vlmevalkit=ocrbench(reference, rows, answers))
    rows = invented.mathvista_rows()
    answers = invented.answers(rows, invented.TEXTS)
    write("mathvista", rows, answers, vlmevalkit=mathvista(reference, rows, answers, None),
          judged=mathvista(reference, rows, answers, Judge(invented.VALUE_REPLIES)))  # fmt: skip
    rows = invented.mmvet_rows()
    answers = invented.answers(rows, invented.TEXTS)
    write("mmvet", rows, answers, judged=mmvet(reference, rows, answers, Judge(invented.SCORE_REPLIES)))

    rows = invented.mmbench_video_rows(mmb_video.L3_DIMS)
    answers = invented.answers(rows, invented.TEXTS)
    write("mmbench_video", rows, answers, judged=video(
        reference, "mmbench_video", "MMBenchVideo", rows, answers, Judge(invented.RATING_REPLIES),
        lambda table: {f"{row}/{k}": float(v) for row, line in table.items() for k, v in line.items() if v != "nan"},
    ))  # fmt: skip
    rows = invented.video_mme_rows(videomme.DOMAINS, videomme.SUB_CATEGORIES, videomme.TASK_CATEGORIES)
    answers = invented.answers(rows, invented.LETTERS)
    write("video_mme", rows, answers, vlmevalkit=video(
        reference, "videomme", "VideoMME", rows, answers, None, flatten_video_mme
    ))  # fmt: skip
    rows = invented.mvbench_rows()
    answers = invented.answers(rows, [text for text in invented.LETTERS if text not in invented.EMPTY_WORDS])
    for key, judge in (("vlmevalkit", None), ("judged", letter_judge)):
        write("mvbench", rows, answers, **{key: video(
            reference, "mvbench", "MVBench", rows, answers, judge,
            lambda table: {f"none/{task}": float(line[2].rstrip("%")) for task, line in table.items()},
        )})  # fmt: skip


def flatten_video_mme(rating: dict) -> dict[str, float]:
    """Cells of Video-MME's rating, in per cent."""
    table = {}
    for duration, groups in rating.items():
        for group, names in groups.items():
            for name, value in names.items() if isinstance(names, dict) else [("", names)]:
                if value != "nan":
                    table[f"{duration}/{group}{'.' * bool(name)}{name}"] = 100 * float(value)
    return table


def write(name: str, rows: list[dict], answers: dict, **results: dict) -> None:
    """Write or complete a file."""
    path = HERE / name / "scores.json"
    path.parent.mkdir(exist_ok=True)
    about = {
        "vlmevalkit": "VLMEvalKit 00e0cf87 (2024-12-26); frames in memory, so that only empty cells are missing",
        "judged": "as vlmevalkit, with the judge of invented.reply",
        "python": platform.python_version(),
        "packages": {package: metadata.version(package) for package in ("pandas", "numpy")},
        "data": "invented (tests/goldens/evaluation/invented.py, no random numbers)",
    }
    golden = invented.read(path) if path.exists() else {}
    kept = golden if golden.get("items") == rows and golden.get("answers") == answers else {}
    merged_about = {**kept.get("about", {}), **about}
    for result in results.values():
        result["table"] = dict(sorted(result["table"].items()))  # the references' order is that of a set
    path.write_text(
        invented.to_json({**kept, "about": merged_about, "items": rows, "answers": answers, **results}),
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
