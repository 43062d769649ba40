"""Add to <benchmark>/scores.json what upstream's evaluation scripts make of the same invented rows.

    python -m tests.goldens.evaluation.make_upstream_scores --upstream CLONE

CLONE is a checkout of https://github.com/OpenGVLab/InternVL at 2410d1d. Needs `pandas numpy tqdm pillow Levenshtein`;
packages that the scores do not need are stubs. To run after make_vlmevalkit_scores. Rows on which a script raises are
listed under `raises` and have no verdict.
"""

import argparse
import ast
import importlib.util
import json
import runpy
import sys
import tempfile
import types
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.goldens.evaluation import invented
from tests.goldens.evaluation.make_vlmevalkit_scores import HERE, STUBS, StubFinder

ABOUT = "OpenGVLab/InternVL 2410d1d (2025-09-22), internvl_chat/eval: its functions on each row"


class Scripts:
    """Upstream's scripts as modules."""

    def __init__(self, clone: Path):
        STUBS.update({"internvl", "openai", "word2number", "datasets"})
        sys.meta_path.append(StubFinder())
        self._folder = clone / "internvl_chat" / "eval"

    def __call__(self, path: str) -> types.ModuleType:
        file = self._folder / f"{path}.py"
        sys.path.insert(0, str(file.parent))
        spec = importlib.util.spec_from_file_location(path.replace("/", "_"), file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def run(self, path: str, *arguments: str) -> dict:
        """Globals of a script after its run."""
        sys.argv = [path, *arguments]
        return runpy.run_path(str(self._folder / f"{path}.py"), run_name="__main__")


def by_row(rows: list[dict], answers: Mapping[str, str], right: Callable[[dict, str], bool]) -> dict:
    """Verdicts of a function on rows, and the rows on which it raises."""
    verdict, raises = {}, []
    for row in rows:
        try:
            verdict[row["index"]] = int(right(row, answers[row["index"]]))
        except (IndexError, AssertionError, ValueError):
            raises.append(row["index"])
    return {"verdict": verdict, "raises": raises}


def options(row: dict) -> dict[str, str]:
    """Options of a row by letter."""
    return {letter: row[letter] for letter in "ABCD" if row.get(letter)}


def seed(scripts: Scripts, rows: list[dict], answers: dict) -> dict:
    """Results of SEED-Bench; every row has its own type, and an empty answer stops the script."""
    kept = [row for row in rows if answers[row["index"]]]
    questions = [
        {"question_id": row["index"], "question_type_id": n, "data_type": "image", "answer": row["answer"]}
        for n, row in enumerate(kept, start=1)
    ]
    with tempfile.TemporaryDirectory() as folder:
        results, annotation = Path(folder, "a.jsonl"), Path(folder, "b.json")
        lines = [{"prediction": answers[r["index"]], "answer": r["answer"], "question_id": r["index"]} for r in kept]
        results.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        types_of = {f"type {q['question_type_id']}": q["question_type_id"] for q in questions}
        annotation.write_text(json.dumps({"questions": questions, "question_type": types_of}), encoding="utf-8")
        found = scripts.run(
            "seed/calculation", "--image_result_file", str(results), "--anno_path", str(annotation)
        )["type_counts"]  # fmt: skip
    verdict = {question["question_id"]: found[question["question_type_id"]][0] for question in questions}
    return {"verdict": verdict, "raises": [row["index"] for row in rows if row not in kept]}


def mmmu(scripts: Scripts, rows: list[dict], answers: dict) -> dict:
    """Results of MMMU by row."""
    task, official = scripts("mmmu/evaluate_mmmu"), scripts("mmmu/eval_utils")

    def right(row: dict, answer: str) -> bool:
        if options(row):
            return official.eval_multi_choice(row["answer"], task.post_process(answer, options(row)))
        is_list = row["answer"].startswith("[")
        reference = ast.literal_eval(row["answer"]) if is_list else row["answer"]
        return official.eval_open(reference, official.parse_open_response(answer.strip()))

    results = by_row(rows, answers, right)
    kept = [row for row in rows if row["split"] == "validation" and row["index"] not in results["raises"]]
    predictions = {
        row["index"]: task.post_process(text, options(row)) if options(row) else text
        for row in kept
        for text in [answers[row["index"]]]
    }
    truths = {
        row["index"]: {
            "question_type": "multiple-choice" if options(row) else "open",
            "ground_truth": ast.literal_eval(row["answer"]) if row["answer"].startswith("[") else row["answer"],
        }
        for row in kept
    }
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, "output.json"), Path(folder, "answers.json")]
        for path, content in zip(paths, (predictions, truths)):
            path.write_text(json.dumps(content), encoding="utf-8")
        found = scripts.run("mmmu/main_eval_only", "--output_path", str(paths[0]), "--answer_path", str(paths[1]))
    printed = found["printable_results"]
    return results | {"validation": {key: 100 * line["acc"] for key, line in printed.items() if line["num"]}}


def pope(scripts: Scripts, rows: list[dict], answers: dict) -> dict:
    """Results of POPE by row and by category."""
    script = scripts("pope/eval_pope")
    table = {}
    texts = {}
    for category in ("random", "popular", "adversarial"):
        members = [row for row in rows if category in row["category"].split(",")]
        with tempfile.NamedTemporaryFile("w", suffix=".json") as labels:
            labels.writelines(json.dumps({"label": row["answer"].lower()}) + "\n" for row in members)
            labels.flush()
            results = [{"text": answers[row["index"]]} for row in members]
            table[f"{category}/Overall"] = 100 * script.eval_pope(results, labels.name)
        texts.update({row["index"]: result["text"] for row, result in zip(members, results)})
    table["Overall/Overall"] = sum(table.values()) / len(table)
    verdict = {row["index"]: int(texts[row["index"]] == row["answer"].lower()) for row in rows}
    return {"table": table, "verdict": verdict}


def mvbench(scripts: Scripts, rows: list[dict], answers: dict) -> dict:
    """Results of MVBench by row."""
    script = scripts("mvbench/evaluate_mvbench")

    def right(row: dict, answer: str) -> bool:
        letter = chr(65 + ast.literal_eval(row["candidates"]).index(row["answer"]))
        return script.check_ans(answer, f"({letter}) {row['answer']}")

    return by_row(rows, answers, right)


def mathvista(scripts: Scripts, rows: list[dict], answers: dict) -> dict:
    """Results of MathVista by row, in the quick mode."""
    extract, score = scripts("mathvista/extract_answer"), scripts("mathvista/calculate_score")

    def right(row: dict, answer: str) -> bool:
        choices = ast.literal_eval(row["choices"])
        problem = {"choices": choices, "query": "", **{key: row[key] for key in ("question_type", "answer_type")}}
        value = score.normalize_extracted_answer(
            extract.extract_answer(answer, problem, quick_extract=True), choices, row["question_type"],
            row["answer_type"], row["precision"],
        )  # fmt: skip
        return score.safe_equal(value, row["answer"])

    return by_row(rows, answers, right)


def main() -> None:
    """Complete the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream", type=Path, required=True)
    scripts = Scripts(parser.parse_args().upstream)
    scienceqa = scripts("scienceqa/evaluate_scienceqa")
    for name, makers in {
        "choice": {
            "upstream_seed": seed,
            "upstream_scienceqa": lambda scripts, rows, answers: by_row(
                rows, answers, lambda row, answer: scienceqa.post_process(answer, options(row)) == row["answer"]
            ),
        },
        "mmmu": {"upstream": mmmu}, "pope": {"upstream": pope}, "mvbench": {"upstream": mvbench},
        "mathvista": {"upstream": mathvista},
    }.items():  # fmt: skip
        path = HERE / name / "scores.json"
        golden = invented.read(path)
        golden["about"]["upstream"] = ABOUT
        for key, make in makers.items():
            golden[key] = make(scripts, golden["items"], golden["answers"])
        path.write_text(invented.to_json(golden), encoding="utf-8")


if __name__ == "__main__":
    main()
