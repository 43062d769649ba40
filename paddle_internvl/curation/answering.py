"""Answers of a pipeline in this process, for `sampling`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from paddle_internvl.prompt.special_tokens import IMAGE_TOKEN


def pipeline_answer(pipe, generation: Mapping) -> Callable[[Sequence[tuple[str, list[str], int]]], list[str]]:
    """A function that answers prompts by continuous batching; equal prompts share their prefix and their pictures.

    Args:
        pipe: a `Pipeline`.
        generation: settings of every answer but the seed.
    """

    def answer(requests: Sequence[tuple[str, list[str], int]]) -> list[str]:
        prompts = [
            (prompt.replace("<image>", IMAGE_TOKEN), files) if files else prompt for prompt, files, _ in requests
        ]
        configs = [{**generation, "seed": seed} for _, _, seed in requests]
        return [response.text for response in pipe(prompts, configs)]

    return answer
