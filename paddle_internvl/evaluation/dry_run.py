"""Dry run: rows, pictures, tiles and prompt tokens of a benchmark, counted by the config and the tokenizer alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from paddle_internvl.evaluation.conversation import messages_of
from paddle_internvl.evaluation.item import Index
from paddle_internvl.evaluation.pictures import open_pictures, tile_grids
from paddle_internvl.evaluation.prompts import PromptError
from paddle_internvl.evaluation.run import prompt_of
from paddle_internvl.evaluation.suite import Job
from paddle_internvl.prompt.encode import encode_prompt
from paddle_internvl.prompt.messages import apply_template, parse_messages
from paddle_internvl.prompt.templates import get_conv_template


@dataclass
class Workload:
    """Workload of a benchmark.

    Attributes:
        rows: rows that are asked.
        pictures: pictures and frames.
        tiles: tiles of all pictures, thumbnails counted.
        prompt_tokens: tokens of all prompts, visual tokens counted.
        prompts: tokens and tiles of each row.
        max_new_tokens: limit of an answer.
        faults: reason by index of rows that can't be asked.
    """

    rows: int = 0
    pictures: int = 0
    tiles: int = 0
    prompt_tokens: int = 0
    prompts: list[tuple[int, int]] = field(default_factory=list)
    max_new_tokens: int = 0
    faults: dict[Index, str] = field(default_factory=dict)

    @property
    def longest(self) -> tuple[int, int]:
        """Tokens and tiles of the longest prompt."""
        return max(self.prompts, default=(0, 0))


def workload(job: Job, folder: Path) -> Workload:
    """Workload of a benchmark on a checkpoint.

    Args:
        job: of a run.
        folder: of the checkpoint; its config and tokenizer are read.
    """
    from paddlenlp.transformers import AutoConfig, AutoTokenizer

    config, tokenizer = AutoConfig.from_pretrained(str(folder)), AutoTokenizer.from_pretrained(str(folder))
    settings, counted = job.settings, Workload()
    thumbnail = settings.rules == "vlmevalkit" or config.use_thumbnail
    for item in job.selected:
        counted.rows += 1
        try:
            prompt = prompt_of(item, job.benchmark, settings)
            pictures = open_pictures(prompt)
            messages = messages_of(prompt, pictures)
        except PromptError as error:
            counted.faults[item.index] = error.reason
            continue
        tiles = [grid.tiles for grid in tile_grids(prompt, pictures, config.tile_side, thumbnail)]
        tokens = _prompt_tokens(config, tokenizer, messages, [count * config.num_image_token for count in tiles])
        counted.pictures += len(pictures)
        counted.tiles += sum(tiles)
        counted.prompt_tokens += tokens
        counted.prompts.append((tokens, sum(tiles)))
        counted.max_new_tokens = max(counted.max_new_tokens, settings.max_new_tokens or prompt.max_new_tokens)
    return counted


def _prompt_tokens(config, tokenizer, messages: list[dict], visual_tokens: Sequence[int]) -> int:
    conversation = get_conv_template(config.template)
    dialogue = parse_messages(messages)
    if dialogue.system is not None:
        conversation.system_message = dialogue.system
    apply_template(conversation, dialogue.turns, [1] * len(visual_tokens))
    return len(encode_prompt(tokenizer, conversation, visual_tokens))
