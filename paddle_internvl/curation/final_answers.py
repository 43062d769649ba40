"""Final answers of chain-of-thought responses: `Final answer: …`, `\\boxed{…}`, `<think>…</think>`.

In: a response and the version of its prompt. Out: the final answer, or a FormatError with the reason. Source:
upstream's `reasoning_data_pipeline/utils/accuracy_reward.py`.
"""

from __future__ import annotations

import re

PROMPT_VERSIONS = ("en", "zh", "en_v2", "zh_v2", "en_r1", "zh_r1", "direct")
OPTIONS = "ABCDEFGHIJKLMN"  # letters of multiple choice
_TRIGGERS = ("Final answer:", "Final Answer:", "答案:")
_BOX = "\\boxed{"
_LEAST_THINKING = 21  # characters
_THINK = re.compile(r"<think>.*?</think>\s*.+", re.DOTALL)


class FormatError(ValueError):
    """A response has no clear final answer; the text is the reason, the same for all responses of a kind."""


def final_answer(response: str, prompt_version: str = "en") -> str:
    """Final answer of a response, parsed by the format that its prompt requests.

    Args:
        response: text of the model.
        prompt_version: one of `PROMPT_VERSIONS`.
    Returns:
        The answer, stripped for 'en' and 'zh'. Without a balanced box the whole response of 'en_v2' and 'zh_v2'. The
            whole response, stripped, of 'direct'.
    Raises:
        FormatError: the response breaks the format.
    """
    if prompt_version not in PROMPT_VERSIONS:
        raise ValueError(f"prompt_version {prompt_version!r}; use one of {', '.join(PROMPT_VERSIONS)}")
    if prompt_version in ("en", "zh"):
        return _after_trigger(response)
    if prompt_version == "direct":
        if not response.strip():
            raise FormatError("no final answer")
        return response.strip()
    if prompt_version.endswith("_r1"):
        _check_thinking(response)
    elif len(response) < _LEAST_THINKING:
        raise FormatError("response too short")
    return boxed(response)


def _after_trigger(response: str) -> str:
    """The text after the last `Final answer:`."""
    trigger = next((trigger for trigger in _TRIGGERS if trigger in response), None)
    if trigger is None:
        raise FormatError("no final answer")
    if response.count(trigger) > 2:
        raise FormatError("several final answers")
    rationale, answer = response.rsplit(trigger, 1)
    if response.count("\n") < 2 or not rationale.strip():
        raise FormatError("no rationale")
    if "\n" in answer.strip():
        raise FormatError("final answer of several lines")
    return answer.strip()


def _check_thinking(response: str) -> None:
    """Raise FormatError unless a response is one `<think>` block and an answer with a box."""
    counts = response.count("<think>"), response.count("</think>")
    if counts != (1, 1) or not _THINK.fullmatch(response):
        raise FormatError("not one <think> block and an answer")
    thinking, answer = response.split("</think>")
    if boxed(answer.strip()) == answer.strip():
        raise FormatError("no box after </think>")
    if len(thinking.strip()) < _LEAST_THINKING:
        raise FormatError("response too short")


def boxed(text: str) -> str:
    """Content of the last `\\boxed{}`; the whole text if there is none or its braces are unbalanced."""
    start = text.rfind(_BOX)
    if start < 0:
        return text
    start += len(_BOX)
    depth = 1
    for end in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[start:end]
    return text


def with_reference_spelling(response: str, answer: str, reference: str) -> str:
    """A response whose final answer is spelled as the ground truth, if that is contained in it ("2 apples" -> "2").

    Thousands separators are ignored, an option "(B) cat" counts as "B", and `**` around "Final" is removed.

    Args:
        response: text of the model, format 'en' or 'zh'.
        answer: its final answer.
        reference: ground truth.
    Raises:
        FormatError: the response has one line.
    """
    found, target = answer.lower(), reference.lower()
    if len(target) == 1 and target.upper() in OPTIONS:
        option = _option(answer)
        if option is None:
            return response
        found, target = option, target.upper()
    if target in found or target.strip(".").replace(",", "") in found.strip(".").replace(",", ""):
        response = reference.join(response.rsplit(answer, 1)).strip().strip("*").strip()
    if "\n" not in response:
        raise FormatError("no rationale")
    other_lines, last_line = response.rsplit("\n", 1)
    if "**Final" in last_line:
        response = f"{other_lines}\n{last_line.replace('**Final', 'Final')}".strip()
    return response


def _option(answer: str) -> str | None:
    """The letter of 'B', 'B. cat' or '(B) cat'; None for other answers."""
    answer = answer.strip().strip("*").strip().upper()
    if len(answer) == 1:
        return answer
    if len(answer) > 1 and not answer[1].isalpha() and answer[0] in OPTIONS:
        return answer[0]
    if len(answer) > 2 and answer[0] == "(" and answer[2] == ")" and answer[1] in OPTIONS:
        return answer[1]
    return None
