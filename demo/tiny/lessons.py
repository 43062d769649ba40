"""What the parts are taught besides answers: the tower what patches show, the projector its words, the decoder where to
look.

In: hidden states, and what `scenes` knows of their pictures. Out: losses.
"""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F

from demo.tiny import scenes
from demo.tiny.architecture import GRID
from paddle_internvl.ops import rope

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


def pointing_loss(attention, inputs, pointers: list[tuple[int, int, int, tuple]]) -> paddle.Tensor:
    """How far some heads are from looking at the thing that an answer is about. Which thing a question means is the
    hardest to find out from answers alone.

    Args:
        attention: a decoder layer's self-attention; those heads learn that share its first kv head.
        inputs: what it was given: x [B, L, D], cos, sin.
        pointers: (row, position that looks, position of the tile's first visual token, the box in it).
    """
    x, cos, sin = inputs[:3]
    b, length, _ = x.shape
    e = attention.head_dim
    k = rope.apply(attention.k_proj(x).reshape([b, length, -1, e]), cos, sin)[:, :, 0]  # [B, L, E]
    q = rope.apply(attention.q_proj(x).reshape([b, length, -1, e]), cos, sin)  # [B, L, H, E]
    share = q.shape[2] // (attention.k_proj.weight.shape[1] // e)
    rows = paddle.to_tensor([row for row, *_ in pointers])
    places = paddle.to_tensor([position for _, position, *_ in pointers])
    q = q[:, :, :share].flatten(0, 1).index_select(rows * length + places, axis=0)  # [n, H / K, E]
    scores = q @ k.index_select(rows, axis=0).transpose([0, 2, 1]) / e**0.5  # [n, H / K, L]
    later = paddle.arange(length) > places.unsqueeze(-1)  # [n, L]
    scores = paddle.where(later.unsqueeze(1), paddle.full([], -1e9), scores)
    targets = np.zeros((len(pointers), 1, length), np.float32)
    for target, (_, _, first, box) in zip(targets, pointers):
        target[0, first : first + _SLOTS**2] = _covered(box)
    targets = paddle.to_tensor(targets).expand([-1, share, -1])
    return F.cross_entropy(scores, targets, soft_label=True)


def _covered(box: tuple[float, float, float, float]) -> np.ndarray:
    """Shares of the visual tokens by how much of a box they cover, float32 [N]."""
    left, top, right, bottom = box
    edges = np.arange(_SLOTS + 1) / _SLOTS
    rows = np.clip(np.minimum(edges[1:], bottom) - np.maximum(edges[:-1], top), 0, None)
    columns = np.clip(np.minimum(edges[1:], right) - np.maximum(edges[:-1], left), 0, None)
    inside = np.outer(rows, columns).astype(np.float32)
    return inside.flatten() / inside.sum()
