"""The public model classes: networks with loading, saving, generation and chat, by the names of the model cards.

`checkpoints`, `generation` and `chat` do the work; this file joins them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import paddle

from convert.folder import end_token_ids, token_id
from paddle_internvl.chat import cards
from paddle_internvl.chat.messages import TokenCount, answer_messages, count_tokens, render_prompt, stream_text
from paddle_internvl.chat.scoring import answer_log_probs
from paddle_internvl.checkpoints import hub, loading, saving
from paddle_internvl.checkpoints.folder_checks import require_fitting_tokenizer
from paddle_internvl.configuration import InternLM2Config, InternVLChatConfig
from paddle_internvl.engine.response import Response
from paddle_internvl.generation.batch import answer_lengths, generate_batch
from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.generation.config import generation_config as read_generation_config
from paddle_internvl.models.decoder import DecoderAttention, DecoderForCausalLM
from paddle_internvl.models.internvl import InternVLNetwork
from paddle_internvl.models.loss import CausalLMOutput
from paddle_internvl.models.vision import InternAttention, InternVisionNetwork
from paddle_internvl.prompt.special_tokens import IMG_CONTEXT
from paddle_internvl.prompt.templates import Conversation, get_conv_template

# Arguments of the model cards without an effect: loading is always lean, and no remote code is run.
_ACCEPTED = ("low_cpu_mem_usage", "trust_remote_code", "use_safetensors", "_from_auto", "convert_from_torch")


class _FromCheckpoint:
    """`from_pretrained` and `save_pretrained`, for every network that a checkpoint folder may hold."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *, config=None, dtype=None, torch_dtype=None, device=None,
                        device_map=None, load_in_8bit=False, load_in_4bit=False, group_size=None,
                        quantize_head=False, int8_activations=False, use_flash_attn=True, tensor_parallel_degree=1,
                        trainable=False, adapter=None, **kwargs):  # fmt: skip
        """Load a folder (converted or raw Hugging Face) or a hub id, strictly, in evaluation mode.

        Args:
            pretrained_model_name_or_path: a checkpoint folder, a LoRA adapter's folder that names its base model, or a
                hub id.
            config: replaces the folder's config.
            dtype: 'bfloat16', 'float16', 'float32' or Paddle's; on a CPU float32, or the first.
            torch_dtype: the model cards' name of dtype.
            device: 'cpu' or 'gpu'; None: a CUDA card if there is one.
            device_map: placement of layers on several cards: None, 'auto', one device, or a dict as on the model cards
                (`split_model` makes one).
            load_in_8bit: quantize the decoder blocks' linear weights to int8 (weight only).
            load_in_4bit: quantize them to int4.
            group_size: number of inputs that share a scale: -1 (all), 64 or 128; None: all for 8 bit, 64 for 4 bit.
            quantize_head: quantize the output head too, with the same bits and groups.
            int8_activations: on a CPU, products of many rows (prefill, vision) in int8: rows of activations are rounded
                to int8, sums are exact; the vision tower's linear weights are quantized to int8 too. Needs quantized
                weights.
            use_flash_attn: False keeps plain attention on CUDA.
            tensor_parallel_degree: ranks of a tensor-parallel model: processes that `paddle.distributed.launch` starts
                with the same program. Every rank makes the same calls (`chat`, `chat_messages`, ...) and gets the
                same answers; a program whose input only rank 0 has goes into `paddle_internvl.run_rank`.
            trainable: True: plain parameters that can be trained and wrapped (LoRA, DataParallel), beside quantized
                weights, which are frozen (QLoRA); False: prepared for inference, see
                `checkpoints.preparation.prepare_for_inference`.
            adapter: folder of a LoRA adapter (PEFT's or PaddleNLP's), which is merged into the weights while loading.
            kwargs: fields of the config; `hub`, `revision`, `cache_dir`, ... of `hub.folder_of`; `low_cpu_mem_usage`
                (always on) and `trust_remote_code` (never done) of the model cards; `mapped` of `loading.load`.
        Returns:
            The model, every parameter filled from the checkpoint.
        Raises:
            ValueError (CheckpointError): weights that do not fit, unknown arguments, or what is not supported.
        """
        for name in _ACCEPTED:
            kwargs.pop(name, None)
        hub_options = {name: kwargs.pop(name) for name in hub.ARGUMENTS if name in kwargs}
        model = loading.load(
            cls,
            pretrained_model_name_or_path,
            dtype=torch_dtype if dtype is None else dtype,
            device=device,
            device_map=device_map,
            config=config,
            quantization=loading.quantization_of(load_in_8bit, load_in_4bit, group_size, quantize_head),
            hub=hub_options,
            ranks=tensor_parallel_degree,
            trainable=trainable,
            adapter=adapter,
            int8_activations=int8_activations,
            **kwargs,
        )
        for layer in model.sublayers():
            if isinstance(layer, (InternAttention, DecoderAttention)):
                layer.flash = bool(use_flash_attn)
        model.read_folder(model.checkpoint_folder)
        return model

    def read_folder(self, folder: Path) -> None:
        """Read the end tokens and the image token from the folder's tokenizer and generation files."""

    def save_pretrained(self, save_directory, *args, **kwargs) -> None:
        """Write config, weights and tokenizer files: `from_pretrained` gives the same model back bit for bit.

        Args:
            save_directory: a folder, made if it does not exist. Others: of `checkpoints.saving.save`.
        Raises:
            ValueError: several processes share the model, or an argument is not supported.
        """
        if self.process_group is not None:
            raise ValueError("a tensor-parallel model can't be saved; load it in one process to save it")
        saving.save(self, save_directory, *args, **kwargs)

    def cuda(self, *_args):
        """Move the model to the current CUDA card, as in the cards' `.eval().cuda()`."""
        return self.to(device="gpu")


class InternVisionModel(_FromCheckpoint, InternVisionNetwork):
    """The vision tower InternViT alone: see `InternVisionNetwork.forward`. Its features are not aligned with text."""


class InternLM2ForCausalLM(_FromCheckpoint, DecoderForCausalLM):
    """The language model InternLM2 alone; `generate` and `forward` return the types of PaddleNLP's causal LMs."""

    config_class = InternLM2Config

    def read_folder(self, folder: Path) -> None:
        self.end_token_ids = end_token_ids(folder)

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, labels=None, inputs_embeds=None,
                cache=None, last_only=False, return_dict=True):  # fmt: skip
        """Logits, and the loss where labels are given.

        Args:
            input_ids: int64 [B, L].
            attention_mask: [B, L], 0 at padding.
            position_ids: int64 [B, L].
            labels: int64 [B, L], -100 where nothing is learnt.
            inputs_embeds: [B, L, D] in place of input_ids.
            cache: KV cache of the positions before; then the logits alone are returned, for the decoding loop.
            last_only: logits of the last position only.
            return_dict: False returns the tuple (loss, logits) or (logits,).
        Returns:
            `.logits` float32 [B, L, V] and `.loss`.
        """
        hidden = self.hidden_states(input_ids, inputs_embeds, attention_mask, position_ids, cache, last_only)
        if cache is not None:
            return self.compute_logits(hidden)
        return CausalLMOutput.of(hidden, self, labels, return_dict=return_dict)

    @paddle.no_grad()
    def generate(self, input_ids, attention_mask=None, generation_config=None, streamer=None, **settings):
        """New token ids for prompts.

        Args:
            input_ids: int64 [B, L].
            attention_mask: [B, L], padding on the left.
            generation_config, streamer, settings: see `InternVLChatModel.generate`.
        Returns:
            (ids, scores) as PaddleNLP's `generate`: new ids, int64 [B, new tokens]; and float32 [B, 1], each row's
            mean log-probability of a token, or its beam's score.
        """
        config = _settings(generation_config, settings, self.end_token_ids, self.config)
        config = replace(config, log_probs=config.num_beams == 1)
        embeds = self.get_input_embeddings()(input_ids)
        ids, log_probs = generate_batch(self, embeds, attention_mask, config, streamer, input_ids)
        if config.log_probs:
            log_probs = log_probs.sum(axis=1, keepdims=True) / answer_lengths(ids, config)
        return paddle.to_tensor(ids), paddle.to_tensor(log_probs.astype(np.float32))


class InternVLChatModel(_FromCheckpoint, InternVLNetwork):
    """InternVL, the vision-language model: see the model cards.

    Thread-safe where it answers: several threads may call `chat`, `batch_chat`, `chat_messages`, `chat_stream`,
    `generate` and the other methods of prompts at a time; a `pipeline` decodes their prompts together, which is faster.
    One thread at a time loads, saves, trains, moves or changes a model, while no other thread uses it.

    Attributes:
        template: name of the conversation template.
        conv_template: the template (`.sep` ends a turn).
        system_message: system message of every prompt; assign another, or "" for none.
        vision_model, mlp1, language_model, num_image_token, img_context_token_id: see `InternVLNetwork`.
    """

    def __init__(self, config: InternVLChatConfig):
        super().__init__(config)
        self.template: str = config.template
        self.conv_template: Conversation = get_conv_template(config.template)
        system = config.get("system_message")  # null in raw InternVL3 folders: the template's message is meant
        self.system_message: str = self.conv_template.system_message if system is None else system

    def read_folder(self, folder: Path) -> None:
        in_tokenizer = token_id(folder, IMG_CONTEXT)
        self.img_context_token_id = self.config.get("image_token_id") if in_tokenizer is None else in_tokenizer
        self.end_token_ids = end_token_ids(folder)

    @paddle.no_grad()
    def generate(
        self,
        pixel_values=None,
        input_ids=None,
        attention_mask=None,
        visual_features=None,
        generation_config=None,
        streamer=None,
        **settings,
    ):
        """New token ids for prompts.

        Args:
            pixel_values: [T, 3, S, S] or None.
            input_ids: int64 [B, L].
            attention_mask: [B, L], padding on the left.
            visual_features: [T, N, D] in place of pixel_values.
            generation_config: a dict, a `GenerationConfig` or PaddleNLP's.
            streamer: an object with put(ids) and end(), for one prompt.
            settings: fields of `GenerationConfig`.
        Returns:
            The new ids, int64 [B, new tokens]; rows that ended early are filled with the pad token. With n > 1, n rows
            for each prompt. With log_probs=True a pair of the ids and float32 [B, new tokens].
        Raises:
            ValueError: `<IMG_CONTEXT>` tokens and visual tokens differ in number, or a setting is not supported.
        Source: upstream `modeling_internvl_chat.py`, `generate`.
        """
        config = _settings(generation_config, settings, self.end_token_ids, self.config.llm_config)
        if visual_features is None and pixel_values is not None:
            visual_features = self.extract_feature(pixel_values)
        embeds = self.embed(input_ids, visual_features)
        ids, log_probs = generate_batch(self.language_model, embeds, attention_mask, config, streamer, input_ids)
        ids = paddle.to_tensor(ids)
        return (ids, paddle.to_tensor(log_probs)) if config.log_probs else ids

    def chat(self, tokenizer, pixel_values, question, generation_config, *args, **kwargs):
        """See `paddle_internvl.chat.cards.chat`."""
        return cards.chat(self, tokenizer, pixel_values, question, generation_config, *args, **kwargs)

    def batch_chat(self, tokenizer, pixel_values, questions, generation_config, *args, **kwargs):
        """See `paddle_internvl.chat.cards.batch_chat`."""
        return cards.batch_chat(self, tokenizer, pixel_values, questions, generation_config, *args, **kwargs)

    @cached_property
    def tokenizer(self):
        """The tokenizer of the folder the model was loaded from."""
        from paddlenlp.transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(str(self.checkpoint_folder))
        require_fitting_tokenizer(tokenizer, self.config.llm_config.vocab_size, self.checkpoint_folder)
        return tokenizer

    def chat_messages(self, messages, generation_config=None, **prompt_options) -> Response:
        """Answer OpenAI-style messages.

        Args:
            messages: dicts with role and content, the last the user's; see `prompt.messages`.
            generation_config: a dict, a `GenerationConfig` or PaddleNLP's.
            prompt_options: `thinking`, tile limits and system message, see `chat.messages.parse`.
        Returns:
            The answer, its token counts and finish reason.
        Raises:
            ContextOverflowError (ValueError): the prompt leaves no room for an answer.
            ValueError: messages, media or limits that make no prompt.
            FileNotFoundError: a medium that does not exist.
        """
        return answer_messages(self, self.tokenizer, [messages], generation_config, **prompt_options)[0]

    def batch_chat_messages(self, conversations, generation_config=None, **prompt_options) -> list[Response]:
        """Answer conversations in one batch, each as `chat_messages` does.

        Args:
            conversations: messages of each conversation.
            generation_config: of all conversations, or a list with one for each.
            prompt_options: see `chat_messages`.
        Returns:
            One `Response` for each conversation.
        """
        return answer_messages(self, self.tokenizer, conversations, generation_config, **prompt_options)

    def chat_stream(self, messages, generation_config=None, **prompt_options) -> Iterator[str]:
        """Stream the text of an answer, without its thoughts. Arguments and errors: see `chat_messages`."""
        return stream_text(self, self.tokenizer, messages, generation_config, **prompt_options)

    def log_probs(self, messages, answers, **prompt_options) -> list[list[float]]:
        """Log-probabilities of the tokens of given answers.

        Args:
            messages: as `chat_messages`.
            answers: texts (the token that ends an answer is added) or sequences of token ids (scored as they are).
            prompt_options: see `chat.messages.parse`.
        Returns:
            For each answer one float for each token, as generating exactly these tokens would report them.
        """
        return answer_log_probs(self, self.tokenizer, messages, answers, **prompt_options)

    def render_prompt(self, messages, **prompt_options) -> str:
        """Render the prompt of messages as text, every picture as `<image>`. Arguments: see `chat_messages`."""
        return render_prompt(self, messages, **prompt_options)

    def count_tokens(self, messages, **prompt_options) -> TokenCount:
        """Token count of the prompt of messages, pictures included. Arguments: see `chat_messages`."""
        return count_tokens(self, self.tokenizer, messages, **prompt_options)


def _settings(config, settings: dict, end_tokens: tuple[int, ...], llm_config) -> GenerationConfig:
    """A `GenerationConfig`; without an `eos_token_id` the folder's end tokens, or the language model's config's."""
    config = read_generation_config(config, **settings)
    if config.eos_token_id:
        return config
    return read_generation_config(config, eos_token_id=end_tokens or llm_config.eos_token_id)
