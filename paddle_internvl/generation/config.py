"""What a generation is asked for, in one dataclass, from whatever users hold: a dict, ours, or PaddleNLP's config.

In: settings under the names of transformers, PaddleNLP or LMDeploy. Out: `GenerationConfig`, checked. A setting that
is not supported is an error, never ignored.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class GenerationConfig:
    """Settings of one generation.

    Args:
        max_new_tokens, min_new_tokens: limits of what is generated; the end token is not chosen before the minimum.
        do_sample: sample; else the likeliest token is taken and the sampling settings have no effect.
        temperature: above 0; 0 means greedy. top_k: 0 is off. top_p, min_p: in [0, 1].
        repetition_penalty: above 1 discourages tokens generated before. no_repeat_ngram_size: 0 is off.
        seed: of the sampling; None draws a fresh one. n: answers to each prompt; above 1 only with do_sample.
        num_beams: above 1 searches with that many beams, without sampling; length_penalty: a finished beam's sum of
            log-probabilities is divided by its length to this power; early_stopping: end at num_beams finished beams.
        eos_token_id: ids that end an answer; the prompt's template adds its own. ignore_eos: none does.
        bad_token_ids: ids never chosen. bad_words: the same as texts, each of one token.
        stop_strings: texts that end the answer; cut off, unless include_stop_str_in_output.
        skip_special_tokens: leave special tokens out of the text.
        log_probs: also return each token's log-probability, before the sampling settings act; top_logprobs: and those
            of so many likeliest tokens.
    """

    max_new_tokens: int = 1024
    min_new_tokens: int = 0
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    seed: int | None = None
    n: int = 1
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool = False
    eos_token_id: tuple[int, ...] = ()
    ignore_eos: bool = False
    bad_token_ids: tuple[int, ...] = ()
    bad_words: tuple[str, ...] = ()
    stop_strings: tuple[str, ...] = ()
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    log_probs: bool = False
    top_logprobs: int = 0

    def __post_init__(self):
        for name in ("eos_token_id", "stop_strings", "bad_words", "bad_token_ids"):
            value = getattr(self, name)
            if isinstance(value, (int, str)):
                value = (value,)
            object.__setattr__(self, name, tuple(value or ()))
        if any(not text for text in self.stop_strings):
            raise ValueError("stop_strings holds an empty text")
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name}={value} is outside [{low}, {high}]")
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(f"min_new_tokens={self.min_new_tokens} exceeds max_new_tokens={self.max_new_tokens}")
        if self.num_beams > 1 and (self.samples or self.n > 1 or self.log_probs):
            raise ValueError(f"num_beams={self.num_beams} goes with neither do_sample, n nor log_probs")
        if self.n > 1 and not self.samples:
            raise ValueError(f"n={self.n} answers of a greedy generation would be equal; set do_sample=True")
        if self.top_logprobs and not self.log_probs:
            raise ValueError(f"top_logprobs={self.top_logprobs} needs log_probs=True")

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn rather than taken."""
        return self.do_sample and self.temperature > 0

    @property
    def takes_likeliest(self) -> bool:
        """Whether every token is simply the likeliest, and no more than that is asked for."""
        changed = self.repetition_penalty != 1.0 or self.no_repeat_ngram_size or self.bad_token_ids
        return not (self.samples or self.log_probs or self.min_new_tokens or changed)


_INFINITY = float("inf")
_RANGES = (
    ("max_new_tokens", 1, _INFINITY),
    ("min_new_tokens", 0, _INFINITY),
    ("temperature", 0, _INFINITY),
    ("top_k", 0, _INFINITY),
    ("top_p", 0, 1),
    ("min_p", 0, 1),
    ("repetition_penalty", 1e-6, _INFINITY),
    ("no_repeat_ngram_size", 0, _INFINITY),
    ("n", 1, 128),
    ("num_beams", 1, 64),
    ("top_logprobs", 0, 20),
)
_NAMES = {field.name for field in fields(GenerationConfig)}
_ALIASES = {
    "random_seed": "seed",
    "stop_words": "stop_strings",
    "stop": "stop_strings",
    "stop_token_ids": "eos_token_id",
    "num_return_sequences": "n",
}
# Accepted with the values that change nothing here; another value asks for something that is not there.
_INERT = {
    "num_beam_groups": (1,),
    "use_cache": (True,),
    "diversity_rate": (0.0,),
    "diversity_penalty": (0.0,),
    "typical_p": (1.0,),
    "return_dict_in_generate": (False,),
    "output_scores": (False,),
    "synced_gpus": (False,),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "bad_words_ids": (),
    "penalty_alpha": (),
    # LMDeploy's
    "spaces_between_special_tokens": (True,),
    "response_format": (),
    "logits_processors": (),
    "output_logits": (),
    "output_last_hidden_state": (),
    "return_ppl": (False,),
    "repetition_ngram_size": (0,),
    "repetition_ngram_threshold": (0,),
}
# Names that say where a setting came from, or that only other code paths of PaddleNLP read.
_SILENT = {
    "pad_token_id", "bos_token_id", "decoder_start_token_id", "decode_strategy", "trunc_input", "min_length",
    "use_fast", "use_fp16_decoding", "fast_ptq_sampling", "paddlenlp_version", "transformers_version",
}  # fmt: skip


def generation_config(given=None, **more) -> GenerationConfig:
    """A `GenerationConfig` from a dict, ours, or PaddleNLP's, with keyword arguments on top.

    Raises:
        ValueError: a setting that is not supported or out of range; names it. TypeError: none of the accepted types.
    """
    if given is None:
        given = GenerationConfig()
    if isinstance(given, GenerationConfig):
        return replace(given, **_known(more)) if more else given
    if isinstance(given, dict):
        return GenerationConfig(**_known({**given, **more}))
    if hasattr(given, "to_dict"):  # PaddleNLP's or transformers' own class
        return GenerationConfig(**_known({**_from_object(given), **more}))
    raise TypeError(f"generation_config is a dict or a GenerationConfig, not {type(given).__name__}")


def _from_object(given) -> dict:
    settings = {name: value for name, value in given.to_dict().items() if not name.startswith("_")}
    length = settings.pop("max_length", 0)
    if length:  # PaddleNLP counts new tokens in either
        settings["max_new_tokens"] = length
    settings.setdefault("do_sample", settings.get("decode_strategy") == "sampling")
    return settings


def _known(settings: dict) -> dict:
    known = {}
    settings = dict(settings)
    if settings.get("logprobs") is not None:  # LMDeploy's number of likeliest tokens, OpenAI's yes or no
        wanted = settings.pop("logprobs")
        settings |= {"log_probs": wanted is not False}
        settings.setdefault("top_logprobs", 0 if isinstance(wanted, bool) else wanted)
    settings.pop("logprobs", None)
    for name, value in settings.items():
        name = _ALIASES.get(name, name)
        if name in _NAMES:
            if value is not None or name == "seed":
                known[name] = value
        elif name in _INERT:
            if value is not None and value not in _INERT[name]:
                way_out = f"use {name}={_INERT[name][0]!r}" if _INERT[name] else "leave it out"
                raise ValueError(f"{name}={value!r} is not supported; {way_out}")
        elif name not in _SILENT:
            raise ValueError(f"generation setting {name!r} is not known; known: {', '.join(sorted(_NAMES))}")
    return known
