"""What vision tower and projector learn before any question is asked: what each patch shows, and in which words.

In: hidden states of the tower, or visual tokens, and the patch labels of `scenes`. Out: losses.
"""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F

from demo.tiny import scenes
from demo.tiny.architecture import GRID

HEAD = scenes.LABELS + 2 * GRID  # of the head on patches: label, row, column
_SLOTS = GRID // 2  # visual tokens along a side: pixel shuffle makes one of 2 x 2 patches


def patch_loss(head, hidden: paddle.Tensor, labels: list[np.ndarray]) -> paddle.Tensor:
    """Cross entropy of what patches show and of their row and column. Without the latter the tower forgets where a
    patch is, and no answer can name a place.

    Args:
        head: a linear layer C -> HEAD. hidden: [T, 1+P, C]. labels: int64 [P] of each tile.
    """
    shown, rows, columns = head(hidden[:, 1:]).flatten(0, 1).split([scenes.LABELS, GRID, GRID], axis=-1)
    weight = paddle.ones([scenes.LABELS])
    weight[0] = 0.1  # most patches are background
    places = paddle.arange(GRID * GRID).tile(len(labels))
    place = F.cross_entropy(rows, places // GRID) + F.cross_entropy(columns, places % GRID)
    return F.cross_entropy(shown, paddle.to_tensor(np.concatenate(labels)), weight=weight) + 0.2 * place


class Words:
    """The words for what a visual token shows, as the tokenizer has them."""

    def __init__(self, tokenizer):
        def ids(phrase: str) -> list[int]:
            first, *_ = words = phrase.split()
            pieces = [first, *("▁" + word for word in words)]  # as an answer begins, and inside a sentence
            return [i for i in tokenizer.convert_tokens_to_ids(pieces) if i != tokenizer.unk_token_id]

        things = [ids(shape) + ids(color) for shape in scenes.SHAPES for color in scenes.COLORS]
        self.vocabulary = len(tokenizer)
        self.of_label = [[], *things, *(ids(character)[:1] for character in scenes.CHARACTERS)]
        thirds = [min(2, int((k + 0.5) * 3 / _SLOTS)) for k in range(_SLOTS)]
        self.of_place = [ids(scenes.POSITIONS[3 * row + column]) for row in thirds for column in thirds]

    def targets(self, labels: np.ndarray) -> np.ndarray:
        """Shares of words, float32 [N, V], for the visual tokens of a tile with patch labels int64 [P]."""
        grouped = labels.reshape(_SLOTS, 2, _SLOTS, 2).transpose(0, 2, 1, 3).reshape(-1, 4)
        shares = np.zeros((len(grouped), self.vocabulary), np.float32)
        for share, own, place in zip(shares, grouped, self.of_place):
            for label in own:
                np.add.at(share, self.of_label[label], 1.0)
            np.add.at(share, place, 1.5)
        return shares / shares.sum(-1, keepdims=True)


def word_loss(words: Words, head, visual_tokens: paddle.Tensor, embeddings: paddle.Tensor, labels) -> paddle.Tensor:
    """How far visual tokens are from the sums of their words' embeddings, so that the language model finds in pictures
    what it knows from text.

    Args:
        head: two numbers of its own, a scale, and V biases. visual_tokens: [T, N, D]. embeddings: [V, D].
        labels: int64 [P] of each tile.
    """
    scale, bias = head
    logits = visual_tokens.flatten(0, 1) @ embeddings.T * scale + bias
    targets = np.concatenate([words.targets(own) for own in labels])
    size = visual_tokens.square().mean(-1).sqrt()  # kept near that of text, for the decoder's sake
    return F.cross_entropy(logits, paddle.to_tensor(targets), soft_label=True) + 0.1 * (size - 0.6).square().mean()
