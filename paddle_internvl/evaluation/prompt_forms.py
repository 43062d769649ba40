"""Texts around a question, as VLMEvalKit's wrapper of InternVL and upstream's scripts write them.

Sources: VLMEvalKit 00e0cf87 (thinking: e8e78f05), `vlmeval/vlm/internvl`; upstream 2410d1d, `internvl_chat/eval`.
"""

import re
from collections.abc import Callable

from paddle_internvl.evaluation.item import Item
from paddle_internvl.prompt.messages import grounding_question

PHRASE = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
LETTER_ZH = "请直接回答选项字母。"
_OPEN = "Answer the question directly."
_OPEN_ZH = "请直接回答问题。"
REASONING = (
    "Your task is to answer the question below. Give step by step reasoning before you answer, and when you're ready "
    'to answer, please use the format "Final answer: .."\n\nQuestion:\n\n'
)
_TAIL = (
    "If you are uncertain or the problem is too complex, make a reasoned guess based on the information provided. "
    "Avoid repeating steps indefinitely—provide your best guess even if unsure. Think step by step logically, "
    "considering all relevant information before answering."
)
_CHOICE_COT = (
    "Answer the preceding multiple choice question. The last line of your response should follow this format: "
    "'Answer: \\boxed{$LETTER}' (without quotes), where LETTER is one of the options. " + _TAIL
)
_QUESTION_COT = (
    "Answer the preceding question. The last line of your response should follow this format: "
    "'Answer: \\boxed{$FINAL_ANSWER}' (without quotes), where 'FINAL_ANSWER' is your conclusion based on the reasoning "
    "provided. " + _TAIL
)
_BOXED = "Please answer the question and put the final answer within \\boxed{}."  # of a model that thinks
_CHINESE = re.compile("[\u4e00-\u9fff]")


def question_with_options(item: Item) -> str:
    """The hint, the question, and a line for every option."""
    hint = f"{item.hint}\n" if item.hint else ""
    return hint + item.question + "".join(f"\n{letter}. {text}" for letter, text in item.options.items())


def direct_text(item: Item, question_type: str, suffix: str, chain_of_thought: bool, thinking: bool = False) -> str:
    """Text that VLMEvalKit's wrapper asks about pictures where a model is not asked for its reasoning.

    Args:
        item: the row.
        question_type: see `Benchmark`.
        suffix: text behind the question of a type other than MCQ.
        chain_of_thought: USE_COT=1: VLMEvalKit's instruction to think step by step, for types that have one.
        thinking: whether the system message asks for thoughts: the instruction asks for a box alone.
    """
    if question_type == "MCQ":
        return _choice_text(item, chain_of_thought, _BOXED if thinking else _CHOICE_COT)
    instructed = chain_of_thought and question_type != "Y/N" and not suffix
    return item.question + (f"\n{_BOXED if thinking else _QUESTION_COT}" if instructed else suffix)


def _choice_text(item: Item, chain_of_thought: bool, instruction: str) -> str:
    text = question_with_options(item)
    chinese = _CHINESE.search(text)
    if item.options:
        text += "\n" + (LETTER_ZH if chinese else LETTER)
    else:
        text += "\n" + (_OPEN_ZH if chinese else _OPEN)
    return text.replace(LETTER, "").strip() + "\n" + instruction if chain_of_thought else text


def reasoning_text(item: Item) -> str:
    """Text that asks an MPO model for its reasoning in VLMEvalKit; the hint is left out, as there."""
    options = "".join(f"{letter}. {text}\n" for letter, text in item.options.items())
    return (REASONING + item.question + (f"\n{options}" if options.strip() else "")).strip()


def _phrase(item: Item) -> str:
    return f"{item.question} {PHRASE}"


def _multimodal_exam(item: Item) -> str:
    options = "".join(f"\n{letter}. {text.strip()}" for letter, text in item.options.items())
    return f"{item.question.strip()}{options}\n{LETTER if options else PHRASE}".strip()


def _yes_no(item: Item) -> str:
    text = item.question if PHRASE in item.question else f"{item.question}\n{PHRASE}"
    return text.strip()


def _as_is(item: Item) -> str:
    return f"{question_with_options(item)}\n{LETTER}" if item.options else item.question


_VIZWIZ = "When the provided information is insufficient, respond with 'Unanswerable'. "
# Text of a question by name of the form (`UpstreamTask.form`).
UPSTREAM_FORMS: dict[str, Callable[[Item], str]] = {
    "as_is": _as_is,
    "query": lambda item: item.question,
    "phrase": _phrase,
    "pages": _phrase,
    "vizwiz": lambda item: f"{item.question} {_VIZWIZ}{PHRASE}",
    "space": lambda item: item.question + " ",
    "choice": lambda item: f"{question_with_options(item)}\n{LETTER}",
    "choice_zh": lambda item: f"{question_with_options(item)}\n{LETTER_ZH}",
    "stripped_choice": lambda item: f"{question_with_options(item)}\n{LETTER}".strip(),
    "yes_no": _yes_no,
    "mmmu": _multimodal_exam,
    "grounding": lambda item: grounding_question(item.question),
    "caption": lambda item: "Provide a one-sentence caption for the provided image.",
}


def upstream_reasoning_text(item: Item) -> str:
    """Text of upstream's `--cot`: the question and its options in the reasoning prompt, without the instruction."""
    question = question_with_options(item).replace(PHRASE, "").strip()
    return REASONING + question
