"""Visual attention of an answer: how much attention its tokens paid to each visual token of the pictures.

In: a model, OpenAI-style messages, the answer as text or as token ids. Out: weights from the model itself, and their
maps over the pictures. The prompt and the answer are computed once more for it; generation keeps no weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import paddle

from paddle_internvl.chat.messages import Messages, parse
from paddle_internvl.chat.scoring import Answer, answer_ids, prompt_embeds
from paddle_internvl.models.attention_weights import attention_weights
from paddle_internvl.preprocess.attention_map import AttentionMap, attention_map
from paddle_internvl.preprocess.grid import TileGrid


@dataclass(frozen=True)
class VisualAttention:
    """Attention of an answer's tokens to the visual tokens of its prompt, mean over all heads of all decoder layers.

    Attributes:
        weights: float32 [A, V'], a row for each token of the answer, of the step that generated it; a column for each
            visual token of all pictures, in the order of the prompt. What is left of a row's 1 went to text.
        grids: of the pictures, clips' frames among them.
        tile_tokens: N, visual tokens of a tile.
        transposed: see `attention_map`.
    """

    weights: np.ndarray
    grids: tuple[TileGrid, ...]
    tile_tokens: int
    transposed: bool

    def maps(self) -> list[AttentionMap]:
        """Map of each picture, mean over the answer's tokens."""
        ends = np.cumsum([grid.tiles * self.tile_tokens for grid in self.grids])[:-1]
        parts = np.split(self.weights.mean(axis=0), ends)
        return [attention_map(part, grid, self.transposed) for part, grid in zip(parts, self.grids)]


@paddle.no_grad()
def visual_attention(
    model, tokenizer, messages: Messages, answer: Answer, context_length: int | None = None, **prompt_options
) -> VisualAttention:
    """Attention of an answer to the pictures of its conversation.

    Args:
        model: an `InternVLChatModel`.
        tokenizer: the model's.
        messages: a conversation that ends with a user's message.
        answer: a text, to which the token that ends an answer is added, or token ids as they are.
        context_length: limit of prompt and answer, in tokens; None: the model's.
        prompt_options: of `chat.messages.parse`.
    Returns:
        A row for each token of the answer, a column for each visual token; `.maps()` puts them over the pictures.
    Raises:
        ContextOverflowError: prompt and answer are longer than context_length.
        ValueError: no picture, or an answer without tokens; see `parse` and `attention_weights`.
    """
    limit = model.config.llm_config.context_length if context_length is None else context_length
    parsed = parse(model, messages, **prompt_options)
    prompt, ids = parsed.ids(tokenizer), answer_ids(tokenizer, parsed, answer)
    if not parsed.grids or not ids:
        raise ValueError("the conversation has no picture" if ids else "the answer has no tokens")
    embeds, decoder = prompt_embeds(model, tokenizer, parsed, prompt, [ids], limit), model.language_model
    cache = decoder.new_cache(1, len(prompt) + len(ids) - 1)
    positions = paddle.arange(len(prompt) - 1).unsqueeze(0)
    decoder.model(embeds[:, :-1], positions, cache=cache, length=len(prompt), last_only=True)
    # The step that generates a token has the token before as its query.
    steps = embeds[:, -1:]
    if len(ids) > 1:
        steps = paddle.concat([steps, model.get_input_embeddings()(paddle.to_tensor([ids[:-1]]))], axis=1)
    keys = (paddle.to_tensor(prompt) == model.img_context_token_id).nonzero().flatten()
    weights = attention_weights(decoder, steps, cache, keys)
    return VisualAttention(
        weights.numpy(), tuple(parsed.grids), model.num_image_token, transposed=model.ps_version == "v1"
    )
