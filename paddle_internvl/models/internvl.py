"""The InternVL network: tiles and token ids in, logits and loss out. Knows nothing of images, text or files.

Follows upstream `modeling_internvl_chat.py`, `InternVLChatModel`; the attribute names are upstream's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import paddle
import paddle.nn.functional as F
from paddlenlp.transformers import PretrainedModel
from paddlenlp.transformers.model_outputs import CausalLMOutputWithPast

from paddle_internvl.configuration import InternVLChatConfig
from paddle_internvl.models.decoder import DecoderForCausalLM
from paddle_internvl.models.feature_cache import FeatureCache
from paddle_internvl.models.projector import build_projector, pixel_shuffle
from paddle_internvl.models.vision import InternVisionNetwork
from paddle_internvl.ops.linear import widen

IGNORED = -100  # label of a token that is not learnt


class InternVLNetwork(PretrainedModel):
    """Vision tower, projector and decoder.

    Attributes:
        vision_model, mlp1, language_model: the three parts. num_image_token: N.
        img_context_token_id: id of the `<IMG_CONTEXT>` token, whose embeddings the visual tokens replace; loading a
            folder with a tokenizer sets it, and so does `chat`.
        end_token_ids: what ends a generation by the folder's generation_config.json.
        vit_batch_size: the most tiles that run through the vision tower at once.
        feature_cache: visual tokens of pictures seen before; `FeatureCache(0)` in its place remembers nothing.
    """

    config_class = InternVLChatConfig
    main_input_name = "pixel_values"
    base_model_prefix = "language_model"
    process_group = None  # of a tensor-parallel model

    def __init__(self, config: InternVLChatConfig):
        super().__init__(config)
        self.select_layer = config.select_layer
        self.downsample_ratio = config.downsample_ratio
        self.ps_version = config.ps_version
        self.num_image_token = config.num_image_token
        self.img_context_token_id: int | None = None
        self.end_token_ids: tuple[int, ...] = ()
        self.vit_batch_size = 16
        self.feature_cache = FeatureCache()
        self.vision_model = InternVisionNetwork(config.vision_config)
        self.mlp1 = build_projector(config)
        self.language_model = DecoderForCausalLM(config.llm_config)

    def get_input_embeddings(self):
        return self.language_model.get_input_embeddings()

    def train(self):
        """As every layer's; weights kept in bfloat16 on a CPU become float32. What was remembered of pictures is
        forgotten, for the weights may change."""
        self.feature_cache.clear()
        widen(self)
        return super().train()

    def set_state_dict(self, state_dict, *args, **kwargs):
        """As every layer's; what was remembered of pictures is forgotten."""
        self.feature_cache.clear()
        return super().set_state_dict(state_dict, *args, **kwargs)

    def extract_feature(self, pixel_values: paddle.Tensor) -> paddle.Tensor:
        """Visual tokens of tiles, `vit_batch_size` tiles at a time.

        Args:
            pixel_values: [T, 3, S, S], normalised; cast to the weights' dtype.
        Returns:
            [T, N, D], as the decoder takes them in.
        Source: upstream `modeling_internvl_chat.py`, `extract_feature`.
        """
        pixel_values = pixel_values.astype(self.vision_model.embeddings.patch_embedding.weight.dtype)
        parts = [
            self.project(
                self.vision_model.hidden_state(pixel_values[first : first + self.vit_batch_size], self.select_layer)
            )
            for first in range(0, pixel_values.shape[0], self.vit_batch_size)
        ]
        return parts[0] if len(parts) == 1 else paddle.concat(parts)

    def feature_steps(self, pixel_values: paddle.Tensor) -> Iterator[paddle.Tensor | None]:
        """`extract_feature` of tiles that run at once, with a pause after every layer of the tower: None, and at last
        the visual tokens [T, N, D]."""
        pixel_values = pixel_values.astype(self.vision_model.embeddings.patch_embedding.weight.dtype)
        for hidden in self.vision_model.hidden_states(pixel_values, self.select_layer):
            last = hidden
            yield None
        yield self.project(last)

    def visual_tokens(self, pictures: Sequence[np.ndarray]) -> paddle.Tensor | None:
        """Visual tokens of pictures, one after the other: [T, N, D] of T tiles in all; None for no picture.

        Args:
            pictures: float32 tiles [T, 3, S, S] of each.
        """
        if not pictures:
            return None
        tokens = self.feature_cache.get_or_compute(pictures, self.extract_feature)
        return tokens[0] if len(tokens) == 1 else paddle.concat(tokens)

    def project(self, hidden_state: paddle.Tensor) -> paddle.Tensor:
        """Visual tokens from a hidden state of the vision tower: [T, 1+P, C] -> [T, N, D]."""
        x = hidden_state[:, 1:]  # [T, P, C]: no class token
        side = int(x.shape[1] ** 0.5)
        x = pixel_shuffle(x.reshape([x.shape[0], side, side, -1]), self.downsample_ratio, self.ps_version)
        return self.mlp1(x.flatten(1, 2))

    def embed(self, input_ids: paddle.Tensor, visual_tokens: paddle.Tensor | None) -> paddle.Tensor:
        """Token embeddings [B, L, D] with visual tokens [T, N, D] written over the `<IMG_CONTEXT>` positions, in order.

        Raises:
            ValueError: `img_context_token_id` is not set, or the counts differ.
        """
        embeds = self.get_input_embeddings()(input_ids)
        if visual_tokens is None:
            return embeds
        if self.img_context_token_id is None:
            raise ValueError(
                "img_context_token_id is not set; use tokenizer.convert_tokens_to_ids('<IMG_CONTEXT>'), "
                "or load the model from a folder with its tokenizer"
            )
        batch, length, width = embeds.shape
        slots = (input_ids.flatten() == self.img_context_token_id).nonzero().flatten()
        visual_tokens = visual_tokens.reshape([-1, width]).astype(embeds.dtype)
        if paddle.in_dynamic_mode() and slots.shape[0] != visual_tokens.shape[0]:  # a captured graph can't count yet
            raise ValueError(
                f"prompt has {slots.shape[0]} <IMG_CONTEXT> tokens but the images give {visual_tokens.shape[0]} "
                f"({visual_tokens.shape[0] // self.num_image_token} tiles x {self.num_image_token}); "
                "give one <image> per picture and do not truncate the prompt"
            )
        flat = paddle.scatter(embeds.reshape([-1, width]), slots, visual_tokens)
        return flat.reshape([batch, length, width])

    def forward(
        self,
        pixel_values: paddle.Tensor | None = None,
        input_ids: paddle.Tensor | None = None,
        attention_mask: paddle.Tensor | None = None,
        position_ids: paddle.Tensor | None = None,
        image_flags: paddle.Tensor | None = None,
        labels: paddle.Tensor | None = None,
        return_dict: bool = True,
    ):
        """Logits of every position, and the loss where labels are given.

        Args:
            pixel_values: [T, 3, S, S] or None. input_ids: int64 [B, L]. attention_mask: [B, L], 1 for tokens.
            position_ids: int64 [B, L] or None. image_flags: [T] or [T, 1], 0 for tiles that belong to no
                `<IMG_CONTEXT>` (training's dummy tiles); None: all count.
            labels: int64 [B, L], -100 where nothing is learnt; position i is predicted from i - 1.
        Returns:
            `.logits` float32 [B, L, V] and `.loss`, the mean over learnt tokens, or None. With return_dict=False the
            tuple (loss, logits) or (logits,).
        Raises:
            ValueError: see `embed`.
        """
        visual_tokens = None
        if pixel_values is not None:
            visual_tokens = self.extract_feature(pixel_values)
            if image_flags is not None:
                real = (image_flags.flatten() == 1).nonzero().flatten()
                visual_tokens = visual_tokens.index_select(real, axis=0)
        embeds = self.embed(input_ids, visual_tokens)
        logits = self.language_model(inputs_embeds=embeds, attention_mask=attention_mask, position_ids=position_ids)
        loss = None if labels is None else next_token_loss(logits, labels)
        if not return_dict:
            return (logits,) if loss is None else (loss, logits)
        return CausalLMOutputWithPast(loss=loss, logits=logits)


def next_token_loss(logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
    """Cross entropy of the next token, averaged over the labels that are not -100.

    Args:
        logits: float32 [B, L, V]. labels: int64 [B, L]; label i is predicted by the logits at i - 1.
    Raises:
        ValueError: there is nothing to learn.
    """
    target = labels[:, 1:].flatten()
    learnt = (target != IGNORED).nonzero().flatten()
    if learnt.shape[0] == 0:
        raise ValueError(f"every label is {IGNORED}: there is nothing to learn in this batch")
    predicted = logits[:, :-1].flatten(0, 1).index_select(learnt, axis=0)
    # Not F.cross_entropy's own ignore_index: a negative one is still counted in its mean.
    return F.cross_entropy(predicted, target.index_select(learnt, axis=0))
