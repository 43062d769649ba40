"""HTML report of a run: rows, verdicts, escaped texts, embedded pictures, its content security policy."""

import base64
import hashlib
import html
import io
import json
import re

import pytest
from PIL import Image

from paddle_internvl.cli.main import main
from tests.evaluation.test_table import write

ATTACK = '</dd><script>alert(1)</script><img src=x onerror="alert(2)">'
VERDICTS = [1, 0, None, 0.5]


@pytest.fixture
def run_folder(tmp_path):
    picture = io.BytesIO()
    Image.new("RGB", (640, 320), "red").save(picture, "PNG")
    encoded = base64.b64encode(picture.getvalue()).decode()
    rows = [[str(i), "What colour?", "red", "blue", "A", encoded if i == 0 else "0", "colour"] for i in range(5)]
    lines = ["\t".join(row) for row in [["index", "question", "A", "B", "answer", "image", "category"], *rows]]
    (tmp_path / "MMStar.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines.append("5\tbeyond --limit\tred\tblue\tA\t0\tcolour")
    verdicts = {str(i): {"verdict": verdict, "extracted": "A"} for i, verdict in enumerate([*VERDICTS, None])}
    write(tmp_path / "m", "m", "MMStar", 50.0, 4, 5, rows=verdicts)
    answers = [{"index": i, "prompt": "<image>\n?", "answer": ATTACK, "prediction": "A"} for i in range(4)]
    journal = "".join(json.dumps(line) + "\n" for line in answers)
    (tmp_path / "m/m_MMStar.jsonl").write_text(journal, encoding="utf-8")
    return tmp_path / "m"


def test_report(run_folder, capsys):
    page_file = run_folder / "report.html"
    words = ["eval", "report", str(run_folder), "MMStar", "--data", str(run_folder.parent), "--out", str(page_file)]
    assert main(words) == 0
    assert "1 right, 1 wrong, 1 none, 1 between, 1 unanswered" in capsys.readouterr().out
    page = page_file.read_text(encoding="utf-8")
    assert re.findall(r'<article class="(\w+)">', page) == ["right", "wrong", "none", "between", "unanswered"]
    assert ATTACK not in page
    assert page.count(html.escape(ATTACK)) == 4
    assert page.count("<script>") == 1
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    data = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(data) == 5
    assert Image.open(io.BytesIO(base64.b64decode(data[0]))).size == (320, 160)
    assert not re.search(r"https?://", page)
    assert main([*words, "--only", "wrong"]) == 0
    assert page_file.read_text(encoding="utf-8").count("<article") == 1


def test_answers_of_vlmevalkit_are_shown(run_folder, capsys):
    (run_folder / "m_MMStar.jsonl").unlink()
    words = ["eval", "report", str(run_folder), "MMStar", "--data", str(run_folder.parent), "--out"]
    page_file = run_folder / "report.html"
    assert main([*words, str(page_file)]) == 2
    assert "has no answers, m_MMStar.jsonl (or .xlsx, .tsv, .json)" in capsys.readouterr().err
    (run_folder / "m_MMStar.json").write_text(json.dumps({"0": "the red one"}))
    assert main([*words, str(page_file)]) == 0
    assert page_file.read_text(encoding="utf-8").count("the red one") == 1
    assert "1 right, 4 unanswered" in capsys.readouterr().out


def test_other_data_are_refused(run_folder, capsys):
    data = run_folder.parent / "MMStar.tsv"
    data.write_text(data.read_text(encoding="utf-8").replace("\n4\t", "\n9\t"), encoding="utf-8")
    out = run_folder / "r.html"
    words = ["eval", "report", str(run_folder), "MMStar", "--data", str(data), "--out", str(out)]
    assert main(words) != 0
    assert "row 4 of m_MMStar.score.json is not in the data" in capsys.readouterr().err
    assert not out.exists()
