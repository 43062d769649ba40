"""Write `tests/goldens/internlm3_tokenizer.json`: ids and texts of InternLM3's own tokenizer. Run by hand.

    python -m tests.goldens.make_internlm3_tokenizer tokenization_internlm3.py

The file is that of the folders of InternVL3-9B and internlm3-8b-instruct; the stored values were made from a copy of
its class on GitHub. Needs transformers 4.55. The vocabulary is the bundled checkpoint's, with the variants of
`tests/tokenizers/vocabularies.py`.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from pathlib import Path

import transformers

from tests.goldens import texts
from tests.tokenizers.vocabularies import INTERNLM3, internlm3

TARGET = Path(__file__).parent / "internlm3_tokenizer.json"


def main() -> None:
    spec = importlib.util.spec_from_file_location("tokenization_internlm3", sys.argv[1])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    corpus = texts.corpus(count=120)
    variants: dict[str, list] = {}
    for name in INTERNLM3:
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = module.InternLM3Tokenizer.from_pretrained(str(internlm3(Path(folder), name)))
            rows = variants[name] = []
            for text in corpus:
                ids = tokenizer(text)["input_ids"]
                rows.append([text, ids, tokenizer.decode(ids), tokenizer.decode(ids, skip_special_tokens=True)])
    made_by = {"transformers": transformers.__version__, "class": "InternLM3Tokenizer"}
    content = {"made_by": made_by, "variants": variants}
    TARGET.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")))


if __name__ == "__main__":
    main()
