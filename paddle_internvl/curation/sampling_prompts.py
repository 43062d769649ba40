"""Prompts of sampled answers, with a chain of thought or without, in the versions that `final_answers` parses.

In: a question with `<image>` marks. Out: the prompt. The wordings are upstream's
(`reasoning_data_pipeline/utils/constants.py`); `direct` is this project's.
"""

from __future__ import annotations

from paddle_internvl.prompt.special_tokens import IMAGE_PLACEHOLDER
from paddle_internvl.prompt.thinking import THINKING_MESSAGE

_THINK = THINKING_MESSAGE + "\n"
INSTRUCTIONS = {
    "en": 'Your task is to answer the question below. Give step by step reasoning before you answer, and when you\'re ready to answer, please use the format "Final answer: .."\n\nQuestion:\n\n{question}',
    "zh": '你的任务是回答以下问题。在回答之前，请逐步推理说明您的思路。当你准备好给出答案时，请使用以下格式："答案: ..."\n\n问题:\n\n{question}',
    "en_v2": "{question}\nAnswer the preceding question. The last line of your response should follow this format: 'Answer: \\boxed{$FINAL_ANSWER}' (without quotes), where 'FINAL_ANSWER' is your conclusion based on the reasoning provided. If you are uncertain or the problem is too complex, make a reasoned guess based on the information provided. Avoid repeating steps indefinitely—provide your best guess even if unsure. Think step by step logically, considering all relevant information before answering.",
    "zh_v2": "{question}\n请回答上述问题。你的回答最后一行应遵循以下格式：“答案：\\boxed{$FINAL_ANSWER}”（不包含引号），其中“FINAL_ANSWER”是你根据推理得出的最终结论。如果你不确定答案或问题过于复杂，请基于已有信息做出有理有据的猜测。避免无限重复推理步骤——即使不完全确定，也请给出你认为最合理的答案。请一步一步进行逻辑思考，充分考虑所有相关信息后再作答。",
    "en_r1": _THINK + "{question}\nPlease answer the question and put the final answer within \\boxed{}.",
    "zh_r1": _THINK + "{question}\n请详细回答这个问题并将最终答案用\\boxed{}包住。",
    "direct": "{question}",
}
# Instructions for short answers, which a chain of thought contradicts.
SHORT_ANSWERS = (
    "Answer the question using a single word or phrase.",
    "Answer with the option's letter from the given choices directly.",
    "Please answer Yes or No.",
    "Please answer the question and put the final answer within \\boxed{}.",
)


def sampling_prompt(question: str, prompt_version: str, pictures: int) -> str:
    """The prompt of a question: its text inside the instructions of the version, which replace those for short answers.

    A single `<image>` mark is moved to the front; without marks one is put there if there are pictures.

    Args:
        question: text with `<image>` marks.
        prompt_version: key of `INSTRUCTIONS`.
        pictures: number of pictures.
    """
    for instruction in SHORT_ANSWERS if prompt_version != "direct" else ():
        if question.endswith(instruction):
            question = question[: -len(instruction)].strip()
    prompt = INSTRUCTIONS[prompt_version].replace("{question}", question)
    if not pictures:
        return prompt
    if prompt.count(IMAGE_PLACEHOLDER) == 1:
        prompt = prompt.replace(f"{IMAGE_PLACEHOLDER}\n", "").replace(IMAGE_PLACEHOLDER, "")
    return prompt if IMAGE_PLACEHOLDER in prompt else f"{IMAGE_PLACEHOLDER}\n{prompt}"
