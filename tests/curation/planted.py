"""A corpus with planted faults of every filter rule, drawn from words of this project's documentation.

python -m tests.curation.planted OUT.jsonl --lines N       a corpus for measurements, without pictures
"""

from __future__ import annotations

import argparse
import json
import random
import re
import string
from pathlib import Path

from tests.random_checkpoints import ROOT

ENGLISH = sorted(set(re.findall(r"\b[a-z]{2,12}\b", (ROOT / "README.md").read_text(encoding="utf-8"))))
CHINESE = sorted(set(re.findall(r"[\u4e00-\u9fff]{1,3}", (ROOT / "README_zh.md").read_text(encoding="utf-8"))))
RUSSIAN = ["красный", "круг", "находится", "слева", "от", "синего", "квадрата", "зелёный", "треугольник", "справа"]
BLOCKS = [
    "| name | size |\n|---|---|\n| {} | {} |",
    "```python\nfor {} in range(10):\n    print({})\n```",
    "1. {}\n2. {}",
    "$$x_1 = \\frac{{a}}{{b}}$$ with {} and {}",
    "\\begin{{align}} a &= b \\\\ c &= d \\end{{align}} {} {}",
    "<ref>{}</ref><box>[[100, 200, 300, 400]]</box> and {}",
    "- **{}**: {}\n---",
]


def sentence(rng: random.Random, words: int | None = None) -> str:
    """A sentence of random English words."""
    chosen = rng.choices(ENGLISH, k=words or rng.randint(4, 25))
    return " ".join(chosen).capitalize() + rng.choice(".!?")


def answer(rng: random.Random) -> str:
    """A clean answer: sentences, Chinese sentences, tables, code, lists, formulas, boxes."""
    if rng.random() < 0.2:
        return "".join("".join(rng.choices(CHINESE, k=rng.randint(3, 15))) + "。" for _ in range(rng.randint(1, 5)))
    parts = [sentence(rng) for _ in range(rng.randint(1, 8))]
    if rng.random() < 0.4:
        parts.insert(rng.randrange(len(parts) + 1), "\n" + rng.choice(BLOCKS).format(*rng.choices(ENGLISH, k=2)) + "\n")
    return " ".join(parts)


def clean(rng: random.Random, pictures: bool = True) -> dict:
    """A clean sample: text, one picture with or without a mark, or two pictures."""
    count = rng.choice((0, 1, 1, 2)) if pictures else 0
    marks = "<image>\n" * (count if count == 2 else rng.randint(0, count))
    item = {"conversations": [{"from": "human", "value": marks + sentence(rng)}, {"from": "gpt", "value": answer(rng)}]}
    if rng.random() < 0.3:
        item["conversations"] += [{"from": "human", "value": sentence(rng)}, {"from": "gpt", "value": answer(rng)}]
    return ({"image": ["good.png"] * 2 if count == 2 else "good.png"} if count else {}) | item


def _respond(item: dict, text: str) -> dict:
    """A sample with another first answer."""
    turns = [dict(turn) for turn in item["conversations"]]
    turns[1]["value"] = text
    return {**item, "conversations": turns}


def _not_a_sample(rng, item):
    line = json.dumps(item)
    bad_role = {"conversations": [{"from": "bot", "value": "a"}, item["conversations"][1]]}
    return rng.choice((line[: rng.randrange(1, len(line))], json.dumps([item]), json.dumps(bad_role), '{"id": 1}'))


def _picture_count(rng, item):
    item = _respond(item, item["conversations"][1]["value"])
    count, name = rng.choice(((2, "good.png"), (1, ["good.png"] * 2), (1, None), (3, ["good.png"] * 2)))
    item["conversations"][0]["value"] = "<image>\n" * count + sentence(rng)
    return {**item, "image": name} if name else {key: item[key] for key in item if key != "image"}


def _unreadable_media(rng, item):
    item = _respond(item, item["conversations"][1]["value"])
    item["conversations"][0]["value"] = "<image>\n" + sentence(rng)
    return {**item, "image": rng.choice(("missing.png", "truncated.png", "text.png"))}


def _repetition(rng, item):
    piece, start = sentence(rng, rng.randint(4, 12)), sentence(rng)
    lines = [sentence(rng) for _ in range(4)]
    return _respond(item, rng.choice((
        f"{start} " + f"{piece} " * rng.randint(5, 40),
        f"{start} " + piece.split()[0] * rng.randint(30, 60),
        "\n".join(lines * rng.randint(2, 5)),
        " ".join([*lines, start, *lines]) + " " + " ".join(lines),
    )))  # fmt: skip


def _duplicate_lines(rng, item):
    line = sentence(rng)
    other = "\n".join(sentence(rng) for _ in range(14))
    return _respond(item, "\n".join([other, *[line] * rng.randint(3, 4), sentence(rng)]))


def _sentence_length(rng, item):
    return _respond(item, " ".join(rng.choices(ENGLISH, k=rng.randint(151, 600))) + ".")


def _word_length(rng, item):
    return _respond(item, f"{sentence(rng)} {''.join(rng.choices(string.ascii_letters, k=rng.randint(101, 400)))}")


def _broken_markup(rng, item):
    word, text = rng.choice(ENGLISH), sentence(rng)
    fault = rng.choice((
        f"```python\n{word}", f"<ref>{word}<box>[[1, 2, 3, 4]]</box>", f"\\begin{{align}} {word}", f"$$ {word}",
        f"{word} \ufffd\ufffd", f"{word} Ã© {word}", f"\\[ {word} \\)", f"</table> {word}", f"<think> {word}",
    ))  # fmt: skip
    return _respond(item, f"{text} {fault}")


def _language_mix(rng, item):
    foreign = rng.choice((" ".join(rng.sample(RUSSIAN, 8)), "".join(rng.choices(CHINESE, k=20))))
    return _respond(item, f"{sentence(rng, 6)} {foreign}")


def _duplicate(rng, item):
    text = item["conversations"][1]["value"]
    return _respond(item, rng.choice((text, text.upper(), f" {text}\n", text.replace(" ", "  "))))


def _near_duplicate(rng, item):
    words = item["conversations"][1]["value"].split(" ")
    words[rng.randrange(len(words))] = "elsewhere"
    return _respond(item, " ".join(words))


PLANTS = {
    "not_a_sample": _not_a_sample,
    "empty_answer": lambda rng, item: _respond(item, rng.choice(("", " ", "\n\n"))),
    "picture_count": _picture_count,
    "unreadable_media": _unreadable_media,
    "duplicate": _duplicate,
    "near_duplicate": _near_duplicate,
    "repetition": _repetition,
    "duplicate_lines": _duplicate_lines,
    "sentence_length": _sentence_length,
    "word_length": _word_length,
    "broken_markup": _broken_markup,
    "language_mix": _language_mix,
}


def corpus(rng: random.Random, pictures: bool = True) -> list[tuple[str | None, str]]:
    """One fault of every rule among clean samples: the rule or None, and the line."""
    rows = [(None, json.dumps(clean(rng, pictures), ensure_ascii=False)) for _ in range(2 * len(PLANTS))]
    for rule, plant in PLANTS.items():
        if pictures or rule not in ("picture_count", "unreadable_media"):
            item = clean(rng, pictures)
            if rule in ("duplicate", "near_duplicate"):  # of an earlier sample, long enough for shingles
                item = _respond(item, " ".join(sentence(rng) for _ in range(6)))
                rows.insert(0, (None, json.dumps(item, ensure_ascii=False)))
            planted = plant(rng, item)
            line = planted if isinstance(planted, str) else json.dumps(planted, ensure_ascii=False)
            rows.insert(rng.randrange(2, len(rows) + 1), (rule, line))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--lines", type=int, default=100_000)
    arguments = parser.parse_args()
    rng, written = random.Random(0), 0
    with open(arguments.out, "w", encoding="utf-8") as stream:
        while written < arguments.lines:
            for _, line in corpus(rng, pictures=False)[: arguments.lines - written]:
                stream.write(line + "\n")
                written += 1


if __name__ == "__main__":
    main()
