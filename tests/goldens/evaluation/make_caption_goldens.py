"""Write captions.json: CIDEr of invented captions by VLMEvalKit's scorer and by upstream's tokenizer and scorer.

    python -m tests.goldens.evaluation.make_caption_goldens --vlmevalkit CLONE

CLONE is a git directory of https://github.com/open-compass/VLMEvalKit. Needs `numpy pycocoevalcap` and Java. The file
holds its birth certificate under `about`.
"""

import argparse
import ast
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

VLMEVALKIT = "00e0cf87"
CAPTIONS = [
    (
        "A brown dog runs through the snow.",
        ["A brown dog runs in the snow.", "A dog is running through snow.", "A dog."],
    ),
    ("a brown dog runs through the snow", ["A brown dog runs in the snow.", "The dog's running.", "A dog."]),
    ("Two people (a man and a woman) stand, smiling!", ["A man and a woman smile.", "Two people stand together."]),
    ("", ["A red bus parked on the street.", "A bus."]),
    ("a bus a bus a bus a bus a bus a bus a bus a bus a bus a bus", ["A red bus on the street.", "A bus."]),
    ("一只猫坐在椅子上。", ["一只猫坐在椅子上。", "A cat sits on a chair."]),
    ("A cat isn't on the chair; it's under it -- look...", ["The cat isn't on the chair.", "It's under it."]),
    ("None", ["None", "nothing"]),
    ("A cat sits on a chair.", ["A cat sits on a chair.", "A cat sits on a chair."]),
    ("line one\nline two", ["line one line two", "lines"]),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vlmevalkit", type=Path, required=True)
    clone = parser.parse_args().vlmevalkit
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    command = ["git", "-C", clone, "show", f"{VLMEVALKIT}:vlmeval/dataset/image_caption.py"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    scorer = next(node for node in ast.parse(text).body if getattr(node, "name", "") == "COCO_Caption_Scorer")
    scope = {}
    exec(compile(ast.Module([scorer], []), "<upstream>", "exec"), scope)
    found = {str(i): [caption] for i, (caption, _) in enumerate(CAPTIONS)}
    truth = {str(i): references for i, (_, references) in enumerate(CAPTIONS)}
    vlmevalkit = scope["COCO_Caption_Scorer"](found, truth).compute_scores()
    # COCOEvalCap.evaluate: both sides by the tokenizer, then each scorer.
    marked = ({i: [{"caption": text} for text in texts] for i, texts in side.items()} for side in (truth, found))
    truth, found = (PTBTokenizer().tokenize(side) for side in marked)
    internvl, rows = Cider().compute_score(truth, found)
    golden = {
        "about": {
            "maker": "python -m tests.goldens.evaluation.make_caption_goldens",
            "vlmevalkit": f"{VLMEVALKIT} (2024-12-26), COCO_Caption_Scorer",
            "internvl": "2410d1d (2025-09-22) calls COCOEvalCap: PTBTokenizer, then Cider, as here",
            "versions": {
                "python": sys.version.split()[0],
                **{name: metadata.version(name) for name in ("numpy", "pycocoevalcap")},
            },
            "data": "invented; no seed",
        },
        "captions": CAPTIONS,
        "vlmevalkit": {"CIDEr": float(vlmevalkit["CIDEr"])},
        "internvl": {"CIDEr": float(internvl) * 100, "rows": [float(row) for row in rows]},
    }
    file = Path(__file__).with_name("captions.json")
    file.write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
