"""Names of generation settings in transformers, PaddleNLP, LMDeploy and vLLM, and the settings that are not supported.

In: settings under any of the names. Out: settings under `GenerationConfig`'s names, or an error that names a setting.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from paddle_internvl.generation.constraints.formats import pop_response_format

ALIASES = {
    "max_tokens": "max_new_tokens",
    "random_seed": "seed",
    "stop_words": "stop_strings",
    "stop": "stop_strings",
    "stop_token_ids": "eos_token_id",
    "num_return_sequences": "n",
    "suppress_tokens": "bad_token_ids",
}
# Settings that are not supported -> values that ask for nothing, besides None.
_UNSUPPORTED = {
    # transformers' and PaddleNLP's
    "max_length": (20, 0),  # transformers' default; a prompt with a picture is longer
    "min_length": (0,),
    "max_time": (),
    "num_beam_groups": (1,),
    "diversity_rate": (0.0,),
    "diversity_penalty": (0.0,),
    "typical_p": (1.0,),
    "top_h": (),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
    "penalty_alpha": (0.0,),
    "dola_layers": (),
    "guidance_scale": (1.0,),
    "encoder_repetition_penalty": (1.0,),
    "encoder_no_repeat_ngram_size": (0,),
    "bad_words_ids": ([],),
    "force_words_ids": ([],),
    "constraints": ([],),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "exponential_decay_length_penalty": (),
    "begin_suppress_tokens": ([],),
    "sequence_bias": ({},),
    "watermarking_config": (),
    "token_healing": (False,),
    "remove_invalid_values": (False,),
    "renormalize_logits": (False,),
    "return_dict_in_generate": (False,),
    "output_scores": (False,),
    "output_attentions": (False,),
    "output_hidden_states": (False,),
    # LMDeploy's and vLLM's
    "logits_processors": ([],),
    "output_logits": (False,),
    "output_last_hidden_state": (),
    "return_ppl": (False,),
    "return_routed_experts": (False,),
    "repetition_ngram_size": (0,),
    "repetition_ngram_threshold": (0,),
    "spaces_between_special_tokens": (True,),
}
_WAYS_OUT = {  # where leaving a setting out is not the way
    "max_length": "it counts the prompt too; use max_new_tokens",
    "min_length": "it counts the prompt too; use min_new_tokens",
    "bad_words_ids": "use bad_token_ids for single tokens",
}
# Accepted with any value: no setting of these changes an answer.
_IGNORED = {
    "pad_token_id", "bos_token_id", "decoder_start_token_id", "trunc_input", "use_cache", "synced_gpus",
    "use_fast", "use_fp16_decoding", "fast_ptq_sampling", "paddlenlp_version", "transformers_version",
    # caches, compilation, and speculative decoding, which gives the same answers
    "cache_implementation", "cache_config", "return_legacy_cache", "prefill_chunk_size", "low_memory",
    "compile_config", "disable_compile", "is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule",
    "assistant_confidence_threshold", "assistant_early_exit", "assistant_lookbehind", "target_lookbehind",
    "prompt_lookup_num_tokens", "max_matching_ngram_size",
    "with_cache", "preserve_cache", "migration_request",  # of LMDeploy's disaggregated servers
}  # fmt: skip


def supported_settings(settings: Mapping, names: Collection[str]) -> dict:
    """Settings under `GenerationConfig`'s names, without those that are None.

    Args:
        settings: name and value of each setting.
        names: `GenerationConfig`'s.
    Raises:
        ValueError: a setting that is not known, or not supported and not at a value that asks for nothing.
    """
    settings = dict(settings)
    settings["response_format"] = pop_response_format(settings)
    logprobs = settings.pop("logprobs", None)
    if logprobs is not None:  # LMDeploy's number of likeliest tokens, OpenAI's bool
        settings |= {"log_probs": logprobs is not False}
        settings.setdefault("top_logprobs", 0 if isinstance(logprobs, bool) else logprobs)
    strategy = settings.pop("decode_strategy", None)  # PaddleNLP's
    if strategy == "sampling":
        settings.setdefault("do_sample", True)
    if settings.get("max_new_tokens") is not None:
        settings.pop("max_length", None)  # transformers lets max_new_tokens win
    supported = {}
    for name, value in settings.items():
        name = ALIASES.get(name, name)
        if name in names:
            if value is not None:
                supported[name] = value
        elif name in _UNSUPPORTED:
            accepted = _UNSUPPORTED[name]
            if value is not None and value not in accepted:
                way_out = f"use {name}={accepted[0]!r}" if accepted else "leave it out"
                raise ValueError(f"{name}={value!r} is not supported; {_WAYS_OUT.get(name, way_out)}")
        elif name not in _IGNORED and not name.startswith("_"):
            raise ValueError(f"generation setting {name!r} is not known; known: {', '.join(sorted(names))}")
    return supported
