"""Write answers.json: final answers, answer checks and preference pairs of awkward strings, by upstream's own code.

    python -m tests.goldens.make_answer_goldens --upstream CLONE

CLONE is a checkout of https://github.com/OpenGVLab/InternVL. Needs `math-verify antlr4-python3-runtime==4.11.* tqdm`.
The file holds its birth certificate under `made_by`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
TOOLS = "tools.reasoning_data_pipeline"
PACKAGES = ("math-verify", "latex2sympy2_extended", "sympy", "antlr4-python3-runtime")
THINKING = "I count the apples in the picture.\nThere are three red and two green ones.\n"

RESPONSES = [
    *(f"{THINKING}{end}" for end in (
        "Final answer: 5", "Final Answer: 5", "答案: 5", "Final answer:5.", "**Final answer: 5**", "Final answer:", "5",
        "Final answer: 5\n", "Final answer: 5\nor 6", "Final answer: 4\nFinal answer: 5", "final answer: 5",
        "Final answer: 4\nFinal answer: 4\nFinal answer: 5", "Final Answer: 4\nFinal answer: 5", "Final answer: \\boxed{5}",
        "Answer: \\boxed{5}", "Answer: \\boxed{\\frac{1}{2}}", "\\boxed{1} or \\boxed{2}", "\\boxed{5", "\\boxed{}",
        "\\boxed{a}}", "\\fbox{5}", "\\boxed {5}", "答案：\\boxed{五}", "Final answer: 5 Final answer: 6",
    )),
    "Final answer: 5", "\n\nFinal answer: 5", "Because.Final answer: 5\n\n", "Five.\nFinal answer: 5", "", "\n\n\n",
    "\\boxed{5}", "The answer is \\boxed{5}", "exactly twenty chars", "exactly twenty-one ch",
    "<think>I count the apples.</think>\\boxed{5}", "<think>I count the apples.</think>\n\nSo \\boxed{5}.",
    "<think>Short.</think>\\boxed{5}", "<think>I count the apples.</think>5", "I count.<think>I count.</think>\\boxed{5}",
    "<think>I count the apples.</think>", "<think>I count \\boxed{4} apples.</think>Five.",
    "<think>I count the</think> apples.</think>\\boxed{5}", "I count the apples.</think>\\boxed{5}",
    "<think>I count the apples.</think>\\boxed{5", "<think><think>I count the apples.</think>\\boxed{5}",
]  # fmt: skip
ANSWERS = [
    ("5", "5"), ("5.", "5"), ("5.0", "5"), ("five", "5"), ("Five apples", "5"), ("none", "0"), ("", "5"), ("the", "a"),
    ("3.5", "3"), ("3. cat", "3"), ("B. cat", "B"), ("(B) cat", "B"), ("(b)", "B"), ("B", "(B)"), ("b", "B"), ("A.", "A"),
    ("A", "B"), ("A cat", "A"), ("B cat", "B"), ("cat", "B. cat"), ("50%", "50"), ("50%", "0.5"), ("51%", "50%"), ("52", "50"),
    ("53", "50"), ("2019", "2020"), ("2020", "2020"), ("20.0", "2000"), ("-5", "5"), ("0", "0.0"), ("0", "1e-9"), ("nan", "5"),
    ("inf", "inf"), ("1e3", "1000"), ("1,000", "1000"), ("1 000", "1000"), ("$5", "5"), ("30°", "30"), ("30 degrees", "30"),
    ("\\angle 30", "30"), ("30 degree", "30°"), ("5 cm", "5"), ("5cm", "5 cm"), ("5 m", "5"), ("100.05", "100"), ("100.2", "100"),
    ("1/2", "0.5"), ("1/2", "2/4"), ("\\frac{1}{2}", "0.5"), ("\\frac{1}{2}", "\\frac{2}{4}"), ("\\frac12", "1/2"),
    ("x^2+2x+1", "(x+1)^2"), ("$x^2+2x+1$", "$(x+1)^2$"), ("\\sqrt{4}", "2"), ("\\sqrt{8}", "2\\sqrt{2}"), ("\\pi", "3.14159"),
    ("\\pi", "3.14"), ("x=5", "5"), ("5", "x=5"), ("(1,2)", "(1, 2)"), ("\\{1,2\\}", "\\{2,1\\}"), ("[1,2)", "[1, 2)"),
    ("yes", "Yes."), ("Yes, it is", "yes"), ("no", "yes"), ("dont", "don't"), ("couldnt've", "couldn't've"), ("it's", "it 's"),
    ("New York", "new  york"), ("new-york", "new york"), ("new - york", "new york"), ("e.g. this", "eg this"), ("a. b. c.", "a b c"),
    ("the cat", "cat"), ("cat", "cats"), ("kitten", "sitting"), ("abc", "xyz"), ("colour", "color"), ("St. John's", "St. Johns"),
    ("$1,234.56", "1234.56"), ("猫", "猫"), ("猫", "狗"), ("3：2", "3:2"), ("3:2", "3/2"), ("\\text{cat}", "cat"), ("\\", "5"),
    ("{", "}"), ("()", ""), ("1" * 60, "1" * 59 + "2"), ("12 and 13", "13"), ("\\dfrac{3}{4}", "75%"), ("10^3", "1000"),
    ("2\\times 3", "6"), ("A, B", "B, A"), ("True", "true"), ("1st", "first"),
]  # fmt: skip
FILES = ["other.jsonl", "chartqa_x.jsonl", "docvqa_x.jsonl", "geometry_x.jsonl", "mavis_x.jsonl"]
FIXES = [
    ("Final answer: 5 apples", "5 apples", "5"), ("Final answer: 15", "15", "5"), ("Final answer: (B) cat", "(B) cat", "B"),
    ("Final answer: cat", "cat", "B"), ("Final answer: B. a cat", "B. a cat", "b"), ("**Final answer: 5**", "5**", "5"),
    ("Final answer: 30,594", "30,594", "30594"), ("Final answer: six", "six", "5"), ("**Final** answer: 5", "5", "6"),
]  # fmt: skip


def attempt(function, *arguments):
    """Result of a function, or None where it fails."""
    try:
        return function(*arguments)
    except Exception:
        return None


def responses() -> list[dict]:
    """Responses to some questions: right, wrong, unclear, repeated."""
    said = {
        "How many apples?": ("5", ["5", "5 apples", "5", "4", "15", "6", "4", None, "five", "\nNone"]),
        "Is it red?": ("No", ["no", "No", "yes", None, "Yes, no doubt"]),
        "Which is it?": ("B", ["B", "(B) cat", "A", "C. dog", "(A) bird", "B. cat"]),
        "What does it cost?": ("30594", ["30,594", "30594", "30549"]),
        "Easy?": ("yes", ["yes", "yes"]),
        "Hard?": ("7", ["8", "9"]),
    }
    items = []
    for question, (answer, finals) in said.items():
        for i, final in enumerate(finals):
            end = "I do not know." if final is None else f"Final answer: {final}"
            response = f"Step one of {len(question)}.\nStep two, variant {i % 4}.\n{end}"
            item = {"image": "a.jpg", "question": question, "answer": answer, "response": response}
            if question == "Is it red?":
                item |= {"image": ["a.jpg", "b.jpg"], "meta": {"n": i}}
            if question == "Easy?":
                del item["image"]
            items.append(item)
    return items + items[:2]


def made_pairs(tools: Path, name: str, *flags: str) -> dict[str, list]:
    """Files that upstream's post-processing writes; lines sorted, since upstream's order is a set's."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "in"), Path(folder, "out")
        source.mkdir()
        (source / name).write_text("".join(json.dumps(item) + "\n" for item in responses()))
        module = f"{TOOLS}.mmpr_data_pipeline_correctness_postprocess"
        command = [sys.executable, "-m", module, "--data-dir", source, "--save-dir", out, *flags]
        subprocess.run(command, cwd=tools.parent, check=True, capture_output=True)
        return {
            file.relative_to(out).as_posix(): sorted(map(json.loads, file.read_text().splitlines()), key=json.dumps)
            for file in sorted(out.rglob("*.jsonl"))
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream", type=Path, required=True)
    clone = parser.parse_args().upstream.resolve()
    sys.path.insert(0, str(clone / "internvl_chat"))
    from tools.reasoning_data_pipeline.utils import accuracy_reward as upstream
    from tools.reasoning_data_pipeline.utils import constants

    commit = subprocess.run(["git", "-C", clone, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    versions = {name: metadata.version(name) for name in PACKAGES}
    fixes = [(f"{THINKING}{end}", answer, reference) for end, answer, reference in FIXES]
    golden = {
        "made_by": {"upstream": commit, "python": sys.version.split()[0], **versions},
        "final_answers": [
            [text, version, (attempt(upstream.parse_answer, text, version) or [None, None])[1]]
            for text, version in itertools.product(RESPONSES, ("en", "zh", "en_v2", "en_r1"))
        ],
        "checks": {
            file: [[*pair, int(upstream.check_answer(*pair, upstream.get_mode(file)))] for pair in ANSWERS] for file in FILES
        },
        "normalized": [[text, upstream.evaluator.answer_processor(text)] for pair in ANSWERS for text in pair],
        "fixes": [[*fix, attempt(upstream.fix_answer, *fix)] for fix in fixes],
        "instructions": {
            "en": constants.INSTRUCTION_EN, "zh": constants.INSTRUCTION_ZH,
            "en_v2": constants.INSTRUCTION_BOXED_EN, "zh_v2": constants.INSTRUCTION_BOXED_ZH,
            "en_r1": constants.INSTRUCTION_R1_EN, "zh_r1": constants.INSTRUCTION_R1_ZH,
        },
        "short_answers": sorted(constants.VALID_INSTRUCTIONS),
        "contractions": upstream.EvalAIAnswerProcessor.CONTRACTIONS,
        "responses": responses(),
        "pairs": {
            "": made_pairs(clone / "internvl_chat/tools", "other.jsonl"),
            "--answer-fix --num-pairs-per-key 3": made_pairs(
                clone / "internvl_chat/tools", "other.jsonl", "--answer-fix", "--num-pairs-per-key", "3"
            ),
        },
    }  # fmt: skip
    parts = [f"{json.dumps(name)}: {json.dumps(part, ensure_ascii=False)}" for name, part in golden.items()]
    (HERE / "answers.json").write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
