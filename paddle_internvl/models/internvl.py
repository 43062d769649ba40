"""The InternVL network: tiles and token ids to hidden states, logits and loss.

Follows upstream `modeling_internvl_chat.py`, `InternVLChatModel`; the attribute names are upstream's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import paddle

from paddle_internvl.configuration import InternVLChatConfig
from paddle_internvl.models.decoder import DecoderForCausalLM
from paddle_internvl.models.feature_cache import FeatureCache
from paddle_internvl.models.loss import CausalLMOutput, row_log_probs
from paddle_internvl.models.pretrained import InternVLPretrainedModel
from paddle_internvl.models.projector import build_projector, pixel_shuffle
from paddle_internvl.models.vision import InternVisionNetwork
from paddle_internvl.ops.native_layers import NativeLayer


class InternVLNetwork(InternVLPretrainedModel):
    """Vision tower, projector and decoder.

    Attributes:
        vision_model: the vision tower.
        mlp1: the projector.
        language_model: the decoder.
        num_image_token: N.
        img_context_token_id: id of the `<IMG_CONTEXT>` token, whose embeddings the visual tokens replace; loading a
            folder with a tokenizer sets it, and so does `chat`.
        end_token_ids: end tokens of the folder's generation_config.json.
        vit_batch_size: maximum number of tiles that run through the vision tower at once.
        vision_as_trained: whether a frozen vision tower runs by the operations of a trained one, for equal numbers.
        native_projector: pixel shuffle and projector as one native call, of a model prepared for inference.
        feature_cache: cache of visual tokens by picture; it keeps nothing until the model is prepared for inference.
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
        self.vision_as_trained = False
        self.feature_cache = FeatureCache(0)
        self.native_projector: NativeLayer | None = None
        self.vision_model = InternVisionNetwork(config.vision_config)
        self.mlp1 = build_projector(config)
        self.language_model = DecoderForCausalLM(config.llm_config)

    def get_input_embeddings(self):
        return self.language_model.get_input_embeddings()

    def extract_feature(self, pixel_values: paddle.Tensor) -> paddle.Tensor:
        """Visual tokens of tiles, `vit_batch_size` tiles at a time.

        Args:
            pixel_values: [T, 3, S, S], normalised; cast to the weights' dtype.
        Returns:
            [T, N, D], as the decoder takes them in.
        Source: upstream `modeling_internvl_chat.py`, `extract_feature`.
        """
        tower = self.vision_model
        pixel_values = pixel_values.astype(tower.embeddings.patch_embedding.weight.dtype)
        learns = not all(parameter.stop_gradient for parameter in tower.parameters())
        learns = paddle.is_grad_enabled() and (learns or self.vision_as_trained)
        parts = []
        for first in range(0, pixel_values.shape[0], self.vit_batch_size):
            with paddle.set_grad_enabled(learns):  # a frozen tower runs as in inference
                hidden = tower.hidden_state(pixel_values[first : first + self.vit_batch_size], self.select_layer)
            parts.append(self.project(hidden))
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
            pictures: tiles [T, 3, S, S] of each, uint8 or normalised.
        """
        if not pictures:
            return None
        tokens = self.feature_cache.get_or_compute(pictures, self.extract_feature)
        return tokens[0] if len(tokens) == 1 else paddle.concat(tokens)

    def project(self, hidden_state: paddle.Tensor) -> paddle.Tensor:
        """Visual tokens from a hidden state of the vision tower: [T, 1+P, C] -> [T, N, D]."""
        native = self.native_projector
        if native is not None and not native.hooked and hidden_state.dtype == paddle.float32:
            return native.project(hidden_state)
        x = hidden_state[:, 1:]  # [T, P, C]: no class token
        side = int(x.shape[1] ** 0.5)
        x = pixel_shuffle(x.reshape([x.shape[0], side, side, -1]), self.downsample_ratio, self.ps_version)
        return self.mlp1(x.flatten(1, 2))

    def embed(self, input_ids: paddle.Tensor, visual_tokens: paddle.Tensor | None) -> paddle.Tensor:
        """Token embeddings [B, L, D] with visual tokens [T, N, D] written over the `<IMG_CONTEXT>` positions, in order.

        Raises:
            ValueError: `img_context_token_id` is not set, or the counts differ.
            WeightsChangedError: see `require_unchanged_weights`.
        """
        self.require_unchanged_weights()
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

    def hidden_states(
        self,
        pixel_values: paddle.Tensor | None = None,
        input_ids: paddle.Tensor | None = None,
        attention_mask: paddle.Tensor | None = None,
        position_ids: paddle.Tensor | None = None,
        image_flags: paddle.Tensor | None = None,
        segment_ids: paddle.Tensor | None = None,
        repeats: int = 1,
    ) -> paddle.Tensor:
        """Hidden states of the decoder after its final norm; `language_model.compute_logits` turns them into logits.

        Args:
            pixel_values: [T, 3, S, S] or None.
            input_ids: int64 [B, L].
            attention_mask: [B, L], 1 for tokens, 0 for padding; None: no padding.
            position_ids: int64 [B, L] or None.
            image_flags: [T] or [T, 1], 0 for tiles without `<IMG_CONTEXT>` tokens (training's dummy tiles); None: all
                1.
            segment_ids: int [B, L] of packed samples; see `DecoderForCausalLM.hidden_states`.
            repeats: number of times that the rows have the `<IMG_CONTEXT>` tokens of all tiles, one time after the
                other: 2 for the chosen and the rejected answers about the same pictures.
        Returns:
            [B, L, D].
        Raises:
            ValueError: see `embed`.
        """
        visual_tokens = None
        if pixel_values is not None:
            visual_tokens = self.extract_feature(pixel_values)
            if image_flags is not None:
                real = (image_flags.flatten() == 1).nonzero().flatten()
                visual_tokens = visual_tokens.index_select(real, axis=0)
            if repeats > 1:
                visual_tokens = visual_tokens.tile([repeats, 1, 1])
        embeds = self.embed(input_ids, visual_tokens)
        return self.language_model.hidden_states(
            inputs_embeds=embeds, attention_mask=attention_mask, position_ids=position_ids, segment_ids=segment_ids
        )

    def forward(
        self,
        pixel_values: paddle.Tensor | None = None,
        input_ids: paddle.Tensor | None = None,
        attention_mask: paddle.Tensor | None = None,
        position_ids: paddle.Tensor | None = None,
        image_flags: paddle.Tensor | None = None,
        labels: paddle.Tensor | None = None,
        return_dict: bool = True,
        segment_ids: paddle.Tensor | None = None,
        loss_weight: paddle.Tensor | None = None,
        return_logits: bool = True,
        repeats: int = 1,
        return_log_probs: bool = False,
    ):
        """Logits of every position, and the loss where labels are given.

        Args:
            pixel_values: see `hidden_states`.
            input_ids: see `hidden_states`.
            attention_mask: see `hidden_states`.
            position_ids: see `hidden_states`.
            image_flags: see `hidden_states`.
            labels: int64 [B, L], -100 where nothing is learnt; position i is predicted from i - 1.
            return_dict: False returns the tuple (loss, logits) without what is None.
            segment_ids: see `hidden_states`.
            loss_weight: float32 [B, L]; see `next_token_loss`.
            return_logits: False leaves the logits out, which take the most memory of all.
            repeats: see `hidden_states`.
            return_log_probs: return `.log_probs` alone, the log-probability of each row's labels; see `row_log_probs`.
        Returns:
            `.logits` float32 [B, L, V]; `.loss`, the mean over learnt tokens, or None; `.learnt_tokens`, their number.
        Raises:
            ValueError: see `embed`.
        """
        hidden = self.hidden_states(
            pixel_values, input_ids, attention_mask, position_ids, image_flags, segment_ids, repeats
        )
        if return_log_probs:
            log_probs = row_log_probs(hidden, self.language_model.lm_head, labels)
            return CausalLMOutput(log_probs=log_probs, balancing_loss=self.language_model.balancing_loss)
        return CausalLMOutput.of(
            hidden, self.language_model, labels, loss_weight, return_logits=return_logits, return_dict=return_dict
        )
