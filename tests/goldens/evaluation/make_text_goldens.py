"""Write texts.json: verdicts of both toolkits' own code on invented answers of text, number and box questions.

    python -m tests.goldens.evaluation.make_text_goldens --vlmevalkit CLONE --internvl CLONE

CLONE is a git directory of https://github.com/open-compass/VLMEvalKit and of https://github.com/OpenGVLab/InternVL. The
functions are cut out of their files, whose packages need a GPU to be imported. Needs `numpy torch tqdm`. The file holds
its birth certificate under `about`.
"""

import argparse
import ast
import json
import re
import subprocess
import sys
import tempfile
import types
from importlib import metadata
from pathlib import Path
from typing import Optional

VLMEVALKIT, VLMEVALKIT_BOXES, INTERNVL = "00e0cf87", "e8e78f05", "2410d1d"
PREDICTIONS = [
    "January 5, 1998", "january 5 1998", "$1,234.50", "1234.5", "R.  J.   Smith ", "", " ", "None", "nan", "NA",
    "none", "45", "45%", "0.45", "47.25", "42.75", "43", "0", "0.0", "-5", "5", "five", "Five.", "3.5.", "1e3",
    "1_000", "2010", "2015", "[2010, 2014]", "the cat", "A cat.", "it's", "dont", "don't", "couldnt've", "new-york",
    "New York", "e.g. this", "北京", "北京。", "猫", "<b>cat</b>", "yes,no", "12,345 cats / dogs", "what?",
    "St. John's",
    "abcdeXXXXX", "abcdeXXXXXX", "x" * 500, "straße", "İ", "Im", "a\tb\nc", "\n", "(left)", "left - right", "a.b.c.",
    "100,000", "100 , 000", "left.", "Left..",
]  # fmt: skip
REFERENCES = [
    ["January 5, 1998", "1/5/98"], ["$1,234.50"], ["R. J. Smith"], ["None"], ["45"], ["45%"], ["0.45"], ["0"], ["-5"],
    ["5"], ["3.5"], ["1000"], ["2010", "2014"], ["cat"] * 4 + ["a cat"] * 3 + ["dog"] * 3, ["it's", "its"],
    ["don't"] * 10, ["the"], ["new york"] * 2 + ["NYC"] * 8, ["北京", "beijing"], ["yes"] * 1 + ["no"] * 9,
    ["12345 cats dogs", "12,345 cats / dogs"], ["abcde"], ["strasse"], ["i"], ["a b c"], ["left"] * 3 + ["right"] * 7,
    ["5 "], ["100000"] * 10, ["nan"], ["left"],
]  # fmt: skip
BOXES = [
    "[[100, 200, 300, 400]]", "[100, 200, 300, 400]", "<ref>a dog</ref><box>[[100, 200, 300, 400]]</box>",
    "[0.1, 0.2, 0.3, 0.4]", "[[110, 190, 310, 390]]", "[[150, 200, 350, 400]]", "[[167, 200, 367, 400]]",
    "[[300, 400, 100, 200]]", "(100, 200, 300, 400)", "[[100, 200, 300, 400, 5]]", "[[100, 200, 300]]",
    "[64, 96, 192, 192]", "[[1064, 96, 192, 192]]", "100 200 300 400", "", "x1 = 100, y1 = 200, x2 = 300, y2 = 400",
    "[[a, b, c, d]] [[100, 200, 300, 400]]", "[nan, 0, 1, 1]", "[inf, 0, 1, 1]", "[1e2, 2e2, 3e2, 4e2]",
    "[[100., 200., 300., 400.]]", "[-100, 200, 300, 400]", "[\n100, 200, 300, 400]", "[100,200,300,400",
    "[[0, 0, 1, 1]]", "[[0, 0, 0, 0]]", "[1_00, 200, 300, 400]", "[100 200 300 400]",
    "[[100, 200, 300, 400], [0, 0, 1, 1]]", "[0, 0, 1000, 1000]", "[0.5, 0.5, 2, 2]", "[1.6, 0.2, 0.3, 0.4]",
    "框在[[100，200，300，400]]", "[[١٠٠, 200, 300, 400]]", "无", "[x], [100, 200, 300, 400]",
    "[[99.9, 200.4, 300.1, 399.8]]", "[.1, .2, .3, .4]", "[+100, 200, 300, 400]", "[1500, 200, 300, 400]",
]  # fmt: skip
TARGETS = [
    ([64.0, 96.0, 192.0, 192.0], 640, 480),
    ([0.0, 0.0, 640.0, 480.0], 640, 480),
    ([70.5, 90.25, 180.0, 200.0], 641, 479),
]


def source(clone: Path, commit: str, path: str) -> str:
    return subprocess.run(
        ["git", "-C", clone, "show", f"{commit}:{path}"], capture_output=True, text=True, check=True
    ).stdout


def cut(text: str, *names: str, **given) -> types.SimpleNamespace:
    """Functions, classes and constants of a source text, by their names."""
    nodes = [node for node in ast.parse(text).body if names_of(node) & set(names)]
    exec(compile(ast.Module(nodes, []), "<upstream>", "exec"), given)
    return types.SimpleNamespace(**given)


def names_of(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.Assign):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {getattr(node, "name", "")}


def vlmevalkit_texts(clone: Path) -> dict:
    import numpy as np

    smp = cut(source(clone, VLMEVALKIT, "vlmeval/smp/misc.py"), "process_punctuation", "istype", re=re)
    rules = cut(
        source(clone, VLMEVALKIT, "vlmeval/dataset/utils/vqa_eval.py"), "_process_digit_article", "hit_calculate",
        "relaxed_correctness", "levenshtein_distance", "anls_compute", "process_answer", "process_line",
        np=np, Optional=Optional, process_punctuation=smp.process_punctuation,
        istype=smp.istype, listinstr=lambda parts, name: any(part in name for part in parts),
    )  # fmt: skip
    methods = {"anls": "DocVQA_VAL", "relaxed_accuracy": "ChartQA_TEST", "vqa_score": "TextVQA_VAL", "accuracy": "GQA"}

    def verdict(method, prediction, answers):
        line = {"prediction": prediction, "answer": repr(answers)}
        return round(float(rules.hit_calculate([rules.process_line(line, method)], methods[method])[0]), 6)

    return {
        method: [[verdict(method, prediction, answers) for answers in REFERENCES] for prediction in PREDICTIONS]
        for method in methods
    }


def internvl_texts(clone: Path) -> dict:
    folder = "internvl_chat/eval/vqa"
    script = source(clone, INTERNVL, f"{folder}/evaluate_vqa.py")
    rules = cut(
        script, "relaxed_correctness", "evaluate_relaxed_accuracy", "evaluate_exact_match_accuracy", Optional=Optional
    )
    vqa = cut(
        source(clone, INTERNVL, f"{folder}/textvqa_eval.py"), "EvalAIAnswerProcessor", "TextVQAAccuracyEvaluator",
        re=re, tqdm=lambda rows, disable: rows,
    )  # fmt: skip
    evaluator = vqa.TextVQAAccuracyEvaluator()
    anls = cut(
        source(clone, INTERNVL, f"{folder}/infographicsvqa_eval.py"), "levenshtein_distance", "evaluate_method",
        "question_ids_to_exclude", json=json,
    )  # fmt: skip

    def vqa_verdict(prediction, answers):
        ten = (answers * 10)[:10]  # the script asserts ten answers
        return evaluator.eval_pred_list([{"pred_answer": prediction, "gt_answers": ten}], disable_tqdm=True)

    def anls_verdict(prediction, answers):
        with tempfile.TemporaryDirectory() as folder:
            truth, sent = Path(folder, "truth.json"), Path(folder, "sent.json")
            row = {"questionId": 0, "question": "", "answers": answers}
            truth.write_text(json.dumps({"data": [row]}))
            sent.write_text(json.dumps([{"questionId": 0, "answer": prediction}]))
            options = types.SimpleNamespace(answer_types=False, anls_threshold=0.5)
            return anls.evaluate_method(truth, sent, options)["result"]["score"]

    def relaxed_verdict(prediction, answers):
        return rules.evaluate_relaxed_accuracy([{"answer": prediction, "annotation": answers}])

    def gqa_verdict(prediction, answers):  # model.chat strips; convert_gqa_for_eval.py; GQA's eval.py compares with ==
        return prediction.strip().rstrip(".").lower() == answers[0]

    tables = {"anls": anls_verdict, "relaxed_accuracy": relaxed_verdict, "vqa_score": vqa_verdict, "gqa": gqa_verdict}
    return {
        name: [[round(float(verdict(p, answers)), 6) for answers in REFERENCES] for p in PREDICTIONS]
        for name, verdict in tables.items()
    }


def vlmevalkit_boxes(clone: Path) -> list:
    import numpy as np

    text = source(clone, VLMEVALKIT_BOXES, "vlmeval/dataset/refcoco.py")
    rules = cut(
        text, "RefCOCODataset", ImageBaseDataset=object, np=np, re=re, pd=types.SimpleNamespace(Series=dict),
        Optional=Optional, List=list, Dict=dict,
    ).RefCOCODataset  # fmt: skip

    def hit(answer, box, width, height):
        coordinates = rules._parse_prediction(answer)
        box = rules._extract_gt_bbox(dict(zip(("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"), box)))
        found = None if coordinates is None else rules._to_absolute(coordinates, width, height)
        iou = 0.0 if found is None else float(rules._compute_iou(found, box))
        return [int(iou >= rules.IOU_THRESHOLD), round(iou, 6)]

    return [[hit(answer, *target) for target in TARGETS] for answer in BOXES]


def internvl_boxes(clone: Path) -> list:
    import torch

    text = source(clone, INTERNVL, "internvl_chat/eval/refcoco/evaluate_grounding.py")
    tree = ast.parse(text)
    loop = next(
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.For) and ast.unparse(node.iter) == "enumerate(merged_outputs)"
    )
    pattern = next(node for node in ast.walk(tree) if isinstance(node, ast.Assign) and names_of(node) == {"PATTERN"})
    area = lambda boxes: (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])  # noqa: E731  torchvision's box_area
    iou = cut(text, "box_iou", torch=torch, box_area=area).box_iou

    def hit(answer, box, width, height):
        scope = {"torch": torch, "re": re, "box_iou": iou, "correct": 0, "total_cnt": 0}
        scope["merged_outputs"] = [{"answer": answer, "gt_bbox": box, "hw": (height, width)}]
        exec(compile(ast.Module([pattern, loop], []), "<upstream>", "exec"), scope)
        return scope["correct"]

    return [[hit(answer, *target) for target in TARGETS] for answer in BOXES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vlmevalkit", type=Path, required=True)
    parser.add_argument("--internvl", type=Path, required=True)
    arguments = parser.parse_args()
    golden = {
        "about": {
            "maker": "python -m tests.goldens.evaluation.make_text_goldens",
            "vlmevalkit": f"{VLMEVALKIT} (2024-12-26); boxes: {VLMEVALKIT_BOXES} (2026-08-18)",
            "internvl": f"OpenGVLab/InternVL {INTERNVL} (2025-09-22)",
            "versions": {
                "python": sys.version.split()[0],
                **{name: metadata.version(name) for name in ("numpy", "torch")},
            },
            "data": "invented; no seed: every prediction with every list of references, every answer with every box",
        },
        "predictions": PREDICTIONS,
        "references": REFERENCES,
        "boxes": BOXES,
        "targets": TARGETS,
        "vlmevalkit": {**vlmevalkit_texts(arguments.vlmevalkit), "boxes": vlmevalkit_boxes(arguments.vlmevalkit)},
        "internvl": {**internvl_texts(arguments.internvl), "boxes": internvl_boxes(arguments.internvl)},
    }
    text = json.dumps(golden, ensure_ascii=False, separators=(",", ":"))
    text = re.sub(
        r'(,"(?:predictions|references|boxes|targets|vlmevalkit|internvl|anls|relaxed_accuracy|vqa_score|accuracy|gqa)":)',
        r"\n\1",
        text,
    )
    Path(__file__).with_name("texts.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
