"""Write <benchmark>/scores.json of MMBench, MMStar, HallusionBench and MME from folders of reference results.

    python -m tests.goldens.evaluation.copy_references FOLDERS

FOLDERS holds a folder per benchmark: a TSV file of invented rows, predictions.json, and expected.json with the results
of VLMEvalKit 00e0cf87 and of upstream's scripts. The pictures stay out; `about` is expected.json's own.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
FILES = {
    "mmbench": "MMBench_DEV_EN_V11.tsv",
    "mmstar": "MMStar.tsv",
    "hallusionbench": "HallusionBench.tsv",
    "mme": "MME.tsv",
}
RULES = "vlmevalkit_2024_12_text_kept"


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path)
    folders = parser.parse_args().folders
    csv.field_size_limit(sys.maxsize)
    for name, file in FILES.items():
        folder = folders / name
        expected = read(folder / "expected.json")
        with (folder / file).open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines, delimiter="\t"))
        items = [{key: value for key, value in row.items() if key != "image"} for row in rows if row["image"]]
        golden = {
            "about": {**expected["about"], "rules": RULES, "data": "invented"},
            "items": items,
            "answers": read(folder / "predictions.json"),
            "judge": {
                index: case  # a row whose option "None" was lost had other options in the judge's run
                for index, case in expected.get("judge", {}).get("vlmevalkit_2024_12", {}).items()
                if index not in expected["reference_bugs"]
            },
            "vlmevalkit": {key: expected[RULES][key] for key in ("scores", "verdict", "extracted", "headline")},
        }
        if name == "mme":
            golden["upstream"] = {
                "items": upstream_items(folder / "Your_Results"),
                "answers": read(folder / "upstream_predictions.json"),
                "scores": expected["internvl_repo"]["scores"],
                "headline": expected["internvl_repo"]["mme_sum"],
            }
        target = HERE / name / "scores.json"
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def upstream_items(folder: Path) -> list[dict]:
    """Rows of MME's text files, by category and number."""
    items = []
    for path in sorted(folder.glob("*.txt")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
            picture, question, answer = line.split("\t")
            index = f"{path.stem}/{number}"
            items.append({"index": index, "image_path": picture, "question": question, "answer": answer,
                          "category": path.stem})  # fmt: skip
    return items


def read(path: Path) -> dict:
    """Object of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
