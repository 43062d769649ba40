"""Judge rules of the data filter: scores of a judge model, and samples that it gives no score.

In: samples. Out: scores with the judge's reasons. Quality is scored for samples without pictures and clips, which the
judge can't see; repetition for all.
"""

from __future__ import annotations

from collections.abc import Mapping

from paddle_internvl.curation.judge_prompts import quality_messages, repetition_messages, score_of
from paddle_internvl.curation.sample_texts import SampleTexts
from paddle_internvl.curation.text_rules import Score
from paddle_internvl.evaluation.completion import ChatRequestError
from paddle_internvl.evaluation.judge import Judge

QUALITY, JUDGED_REPETITION, NO_VERDICT = JUDGE_RULES = ("quality", "judged_repetition", "no_verdict")
_TEMPERATURES = (0.0, 0.5, 1.0)  # of the tries for a reply with a score
_SHOWN = 300  # characters of a reply


def judge_scores(judge: Judge, item: dict, sample: SampleTexts, domain: str, rules: Mapping) -> dict[str, Score]:
    """Scores of a judge and its reasons, by rule.

    Args:
        judge: asked at most twice, and again where a reply has no score.
        item: the object of the sample.
        sample: its texts and media.
        domain: of the sample, for the quality's prompt.
        rules: the rules that apply, by name.
    Returns:
        Scores; `no_verdict` is the number of scores that the judge did not give.
    Raises:
        EndpointUnavailableError: the judge gives no replies at all.
    """
    questions = {}
    if QUALITY in rules and not sample.images and not sample.videos:
        questions[QUALITY] = quality_messages(item, domain)
    if JUDGED_REPETITION in rules:
        questions[JUDGED_REPETITION] = repetition_messages(item)
    scores, missing = {}, []
    for rule, messages in questions.items():
        score, detail = _verdict(judge, messages)
        if score is None:
            missing.append(f"{rule}: {detail}")
        else:
            scores[rule] = (score, detail)
    return {**scores, **({NO_VERDICT: (float(len(missing)), "; ".join(missing))} if missing else {})}


def _verdict(judge: Judge, messages: list[dict]) -> tuple[float | None, str]:
    """The score and the reply; without a score, why there is none."""
    reply = ""
    for temperature in _TEMPERATURES:
        try:
            reply = judge.ask(messages, temperature)
        except ChatRequestError as error:
            return None, str(error)[:_SHOWN]
        score = score_of(reply)
        if score is not None:
            return score, reply.strip()[-_SHOWN:]
    return None, f"no score in {reply.strip()[-_SHOWN:]!r}"
