"""Invented rows of benchmarks with awkward answers, and the replies of an invented judge."""

import itertools
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

LETTERS = [
    "A", "B.", "(C)", "D", "b", "", " C\n", "A or B", "**B**", "\\boxed{C}", "Answer: D", "The answer is A.", "Z",
    "The best option is B", "Best answer: C", "Because of the wind", "答案是B", "C。", "（A）", "a cat",
    "A cat and a dog", "None", "NA", "two", "(A", "B:red", "Option A", "Failed to obtain answer via API.",
    "Cannot determine the answer",
    "The picture shows a green cat, and this is more than ten words long.", "<ref>A</ref>", "E", "(b) red", "d.", ".",
]  # fmt: skip
LABELS = [
    "Yes", "no", "Yes.", "No, there is not.", "nope", "", "Yes and no", "It is not. Yes", "yes-no", "No,no", "是",
    "Unknown", "yes,\nno", "I see 1,000 things: no!", "The answer is yes", "not", "NO",
    "yes/maybe", "Yes , it is", "n.o.", "(yes)",
]  # fmt: skip
TEXTS = [
    "14", "14.0", " 14 ", "1.45", "1.450", "0", "0.0", "[1, 2]", "[1,2]", "one", "", "Final answer: 14",
    "x = 14\nanswer: B", "(B)", "A", "B", "thirty", "40°", "140°", "nan", "1e1", "1,234", "The answer is (C) 3/4.",
    "Final answer: (b)", "None", "-3", "$1.45",
]  # fmt: skip
OPEN = [
    "5", "The result is 5.0", "it is = 12,345.678", "x = 3 so y = 1e3", "A cat", "a", "the answer is b.", "",
    "12345.68", "could be apples\nfinal pears", "Therefore .",
    "1.5e3 and 2", "-7", "thus, 0.333", "PEARS", "999", "3.14159",
]  # fmt: skip
WORDS = [
    "stop",
    "Stop sign",
    "a\nb",
    "x ^ 2+y",
    "x^{2} + y",
    "X^2+Y",
    "",
    "12",
    "1 2",
    "None",
    "停",
    "STOP HERE",
    "2nd St.",
]
OPTIONS = [
    ["cat", "dog", "bird", "two"],
    ["red", "red wine", "None", "NA"],
    ["3/4", "40°", "140°", "1,234"],
    ["yes", "no"],
]


def reply(pool: Sequence[str], prompt: str, temperature: float = 0.0) -> str:
    """Reply of the invented judge to a prompt at a temperature."""
    return pool[zlib.crc32(f"{prompt}{temperature:.1f}".encode()) % len(pool)]


LETTER_REPLIES = ["A", "B", "Z", "The answer is B.", "B. dog"]  # letters of every row: no random pick
LABEL_REPLIES = ["Yes", "No", "Unknown", "maybe", "Yes and no", "No."]
VALUE_REPLIES = ["14", "1.45", "[1, 2]", "B", "(C)", "", "0", "fourteen", "Failed to obtain answer via API."]
SCORE_REPLIES = ["0.5", "1.0", "0", " 0.3 ", "2", "right", "-1", "0.7 because"]
RATING_REPLIES = ["0", "1", "2", "3", " 3", "2.0", "Rating: 3", ""]
# Answers that both references take for right in MVBench, whatever the question: an empty first word, a failed request.
EMPTY_WORDS = ["", " C\n", ".", "Failed to obtain answer via API."]


def choice_rows() -> list[dict]:
    """Rows of multiple-choice questions, some without options, in two splits."""
    rows = []
    for number, (_, options) in enumerate(zip(LETTERS, itertools.cycle(OPTIONS))):
        texts = {} if number % 11 == 10 else lettered(options)
        rows.append({
            "index": str(number), "question": f"图 {number}?" if number % 5 == 4 else f"Question {number}", **texts,
            "answer": "ABCD"[number % len(options)], "category": ("small", "large")[number % 3 % 2],
            "l2-category": ("logic_reasoning", "attribute_reasoning")[number % 2], "split": ("val", "test")[number % 2],
        })  # fmt: skip
    return rows


def circular_rows() -> list[dict]:
    """Passes of circular questions: pass k shows the options rotated by k."""
    rows = []
    for base in range(len(LETTERS)):
        options = OPTIONS[base % len(OPTIONS)]
        for k in range(len(options)):
            rotated = options[-k:] + options[:-k] if k else options
            rows.append({
                "index": str(base + k * 1_000_000), "question": f"图 {base}" if base % 3 else f"Question {base}",
                **lettered(rotated), "answer": "ABCD"[rotated.index(options[base % len(options)])],
                "category": ("image_style", "object_localization")[base % 2],
                "l2-category": ("coarse_perception", "finegrained_perception (instance-level)")[base % 2],
                "split": ("dev", "test")[base % 5 == 0],
            })  # fmt: skip
    return rows


def circular_answers(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Right letters, and an awkward answer to every fifth pass."""
    awkward = itertools.cycle(text for text in LETTERS if "Failed" not in text)
    return {row["index"]: next(awkward) if n % 5 == 4 else row["answer"] for n, row in enumerate(rows)}


def mmmu_rows() -> list[dict]:
    """Rows of MMMU: letters, and open questions with one reference or a list."""
    references = ["5", "['5', '5.0']", "Pears", "B", "12345.68", "['apples', 'pears']", "a", "1000"]
    subjects = ["Art_Theory", "Accounting", "Math", "Clinical_Medicine", "Literature", "Computer_Science"]
    rows = []
    for number, _ in enumerate(LETTERS + OPEN):
        is_open = number >= len(LETTERS)
        options = OPTIONS[number % len(OPTIONS)]
        texts = {} if is_open else lettered(options)
        answer = references[number % len(references)] if is_open else "ABCD"[number % len(options)]
        split = ("validation", "dev")[number % 4 == 3]
        subject = subjects[number % len(subjects)]
        rows.append({
            "index": f"{split}_{subject}_{number}", "question": f"<image 1> {number}?", **texts, "answer": answer,
            "category": subject, "l2-category": ("Business", "Science")[number % 2], "split": split,
        })  # fmt: skip
    return rows


def pope_rows() -> list[dict]:
    """Rows of POPE, of which a row may have several categories."""
    categories = ["random", "random,popular", "adversarial", "popular,adversarial"]
    return [
        {"index": str(n), "question": f"Is there a thing {n}?", "answer": ("Yes", "No", "No")[n % 3],
         "category": categories[n % 4]}
        for n, _ in enumerate(LABELS)
    ]  # fmt: skip


def ocrbench_rows(categories: Sequence[str]) -> list[dict]:
    """Rows of OCRBench: a list of references each."""
    references = [["STOP", "halt"], ["x ^{2}+ y", "x^2+y"], ["12"], ["None", "停"]]
    return [
        {"index": str(n), "question": f"What is written {n}?", "answer": str(references[n % 4]),
         "category": categories[n % 10]}
        for n, _ in enumerate(WORDS * 4)
    ]  # fmt: skip


def mathvista_rows() -> list[dict]:
    """Rows of MathVista of every type."""
    kinds = [
        ("multi_choice", "text", "dog", OPTIONS[0]), ("free_form", "integer", "14", []),
        ("free_form", "float", "1.45", []),
        ("free_form", "list", "[3, 4]", []), ("multi_choice", "text", "40°", OPTIONS[2]),
        ("free_form", "integer", "-3", []),
    ]  # fmt: skip
    rows = []
    for number, _ in enumerate(TEXTS * 3):
        question_type, answer_type, answer, choices = kinds[(number + number // len(TEXTS)) % len(kinds)]
        rows.append({
            "index": str(number), "question": f"Hint: answer.\nQuestion: {number}?", "answer": answer,
            "question_type": question_type, "answer_type": answer_type, "choices": str(choices),
            "answer_option": chr(65 + choices.index(answer)) if choices else "",
            "precision": {"integer": "0", "float": "2"}.get(answer_type, ""),
            "task": ("geometry", "figure")[number % 2],
            "skills": str(["algebra", "statistics"][: 1 + number % 2]), "category": ("math", "general")[number % 2],
            "context": "table", "grade": "high school", "source": "Invented", "language": "english",
        })  # fmt: skip
    return rows


def mmvet_rows() -> list[dict]:
    """Rows of MM-Vet with one to three capabilities each."""
    categories = ["rec", "ocr,math", "rec,know,gen", "ocr,spat", "rec,spat", "math"]
    return [
        {"index": f"v1_{n}", "question": f"What is {n}?", "answer": ("5<AND>6", "a<OR>b", "c")[n % 3],
         "category": categories[n % 6]}
        for n, _ in enumerate(TEXTS)
    ]  # fmt: skip


def mmbench_video_rows(dimensions: Sequence[str]) -> list[dict]:
    """Rows of MMBench-Video with one or two dimensions each."""
    return [
        {"index": str(n), "question": f"What happens {n}?", "answer": f"event {n}", "video": f"v{n % 3}",
         "dimensions": str([dimensions[n % len(dimensions)], dimensions[(7 * n) % len(dimensions)]][: 1 + n % 2])}
        for n, _ in enumerate(TEXTS)
    ]  # fmt: skip


def video_mme_rows(domains: Sequence[str], categories: Sequence[str], tasks: Sequence[str]) -> list[dict]:
    """Rows of Video-MME, of which some hold the options in the question."""
    return [
        {"index": str(n), "video": f"v{n}", "duration": ("short", "medium", "long")[n % 3],
         "domain": domains[n % len(domains)], "sub_category": categories[n % len(categories)],
         "task_type": tasks[n % len(tasks)], "answer": "ABCD"[n % 4],
         "question": f"What {n}?" + ("\nA. cat.\nB. dog.\nC. bird.\nD. two." if n % 3 == 1 else ""),
         "candidates": str(["A. cat.", "B. dog.", "C. bird.", "D. two."])}
        for n, _ in enumerate(LETTERS)
    ]  # fmt: skip


def mvbench_rows() -> list[dict]:
    """Rows of MVBench: the answer is the text of a candidate."""
    rows = []
    for number in range(len(LETTERS) - len(EMPTY_WORDS)):
        candidates = OPTIONS[number % len(OPTIONS)]
        rows.append({
            "index": str(number), "task_type": ("Action Count", "Scene Transition")[number % 2],
            "video": f"v{number}.mp4",
            "question": f"What moves {number}?", "candidates": str(candidates),
            "answer": candidates[number % len(candidates)],
        })  # fmt: skip
    return rows


def lettered(options: Sequence[str]) -> dict[str, str]:
    """Options by letter."""
    return dict(zip("ABCD", options))


def answers(rows: Sequence[Mapping[str, str]], texts: Sequence[str]) -> dict[str, str]:
    """Answers of rows by index, the texts one after the other."""
    return {row["index"]: text for row, text in zip(rows, itertools.cycle(texts))}


def to_json(value: object) -> str:
    """Text of a golden."""
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def read(path: Path) -> dict:
    """A golden that is written already."""
    return json.loads(path.read_text(encoding="utf-8"))
