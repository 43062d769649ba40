"""Documents of `score`: what a judge decides, what it costs, and rows without an answer."""

from paddle_internvl.evaluation import score
from paddle_internvl.evaluation.completion import ChatRequestError, Completion
from paddle_internvl.evaluation.judge import Judge

ROWS = "index\tquestion\tanswer\tA\tB\timage\n" + "".join(f"{i}\twhich?\tA\teven\todd\tAAAA\n" for i in range(4))
ANSWERS = {0: "A", 1: "it divides by two", 2: "B", 3: "no idea"}


class ScriptedChat:
    """Answers "A" to rows about division, and nothing to any other."""

    model = "scripted"

    def complete(self, messages, **_fields):
        if "divides" in messages[0]["content"]:
            return Completion("A", "stop", 100, 1)
        raise ChatRequestError("refused")


def test_a_judge_decides_and_is_counted(tmp_path):
    data = tmp_path / "MMStar.tsv"
    data.write_text(ROWS)
    judge = Judge(ScriptedChat(), concurrency=1)
    alone, judged = score("MMStar", data, ANSWERS), score("MMStar", data, ANSWERS, judge=judge)
    assert (alone["headline"], judged["headline"]) == (25, 50) and "judge" not in alone
    assert judged["judge"] == {
        "model": "scripted", "replies": 1, "cached": 0, "failed": 1, "prompt_tokens": 100, "completion_tokens": 1,
    }  # fmt: skip
    assert any("1" in note for note in judged["notes"])  # the failure is no verdict, and is named
    assert score("MMStar", data, ANSWERS, judge=judge)["judge"]["replies"] == 1  # of this call alone


def test_rows_without_an_answer_leave_no_headline(tmp_path):
    data = tmp_path / "MMStar.tsv"
    data.write_text(ROWS)
    document = score("MMStar", data, {"0": "A", "2": "B", "77": "A"})
    assert (document["scored"], document["expected"], document["headline"]) == (2, 4, None)
    assert document["rows"]["1"] == {"verdict": None, "extracted": None}
