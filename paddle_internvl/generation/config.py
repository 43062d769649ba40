"""`GenerationConfig`: settings of a generation, checked, from keywords, a dict, or another library's config object.

In: settings under the names of transformers, PaddleNLP, LMDeploy or vLLM. A setting that would change the answer and is
not supported is an error, never ignored.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from numbers import Integral, Real

from paddle_internvl.generation.constraints.formats import ResponseFormat
from paddle_internvl.generation.setting_names import supported_settings


@dataclass(frozen=True, init=False)
class GenerationConfig:
    """Settings of one generation. Immutable, so that threads may share one.

    Settings may also have the names of `setting_names.ALIASES` (LMDeploy's `random_seed`, `stop_words`, ...). None
    stands for the default.

    Args:
        max_new_tokens: limit of generated tokens.
        min_new_tokens: the end token is not chosen before so many tokens.
        do_sample: sample; False: greedy, and the sampling settings have no effect.
        temperature: 0 means greedy.
        top_k: 0 or -1 is off.
        top_p: in [0, 1].
        min_p: in [0, 1].
        repetition_penalty: above 1 discourages tokens generated before.
        frequency_penalty: in [-2, 2], subtracted from a token's logit for every time it was generated.
        presence_penalty: in [-2, 2], subtracted once from the logit of every token generated before.
        logit_bias: {token id: bias in [-100, 100]}, added to logits before the penalties; kept as pairs.
        no_repeat_ngram_size: 0 is off.
        seed: of the sampling, a non-negative integer; None draws a fresh one.
        n: answers to each prompt; above 1 only with do_sample.
        num_beams: above 1 runs beam search, without sampling.
        length_penalty: a finished beam's sum of log-probabilities is divided by its length to this power.
        early_stopping: end beam search at num_beams finished beams.
        eos_token_id: ids that end an answer; the prompt's template adds its own.
        ignore_eos: no id ends an answer.
        bad_token_ids: ids never chosen.
        bad_words: the same as texts, each of one token.
        stop_strings: texts that end the answer.
        include_stop_str_in_output: keep the stop string in the answer.
        skip_special_tokens: leave special tokens out of the text.
        log_probs: return each token's log-probability, before the sampling settings apply.
        top_logprobs: also return the log-probabilities of so many likeliest tokens.
        response_format: what the answer has to match: OpenAI's or LMDeploy's dict, a pydantic class, or vLLM's settings
            `structured_outputs` and `guided_*` in its place; needs llguidance.
    """

    max_new_tokens: int = 1024
    min_new_tokens: int = 0
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
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
    response_format: ResponseFormat | None = None

    def __init__(self, **settings):
        values = supported_settings(settings, _NAMES)
        for setting in fields(self):
            object.__setattr__(self, setting.name, values.get(setting.name, setting.default))
        self._check()

    def _check(self) -> None:
        if self.top_k == -1:
            object.__setattr__(self, "top_k", 0)
        for name in ("eos_token_id", "stop_strings", "bad_words", "bad_token_ids"):
            value = getattr(self, name)
            if isinstance(value, (int, str)):
                value = (value,)
            object.__setattr__(self, name, tuple(value or ()))
        for name in ("stop_strings", "bad_words"):
            for text in getattr(self, name):
                if not isinstance(text, str) or not text:
                    raise ValueError(f"{name} holds {text!r}; it takes texts of at least one character")
        for name in ("eos_token_id", "bad_token_ids"):
            for token in getattr(self, name):
                if not isinstance(token, Integral) or token < 0:
                    raise ValueError(f"{name} holds {token!r}; token ids are integers of at least 0")
        object.__setattr__(self, "logit_bias", _bias_pairs(self.logit_bias))
        for name, kind, low, high in _RANGES:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, kind):
                raise ValueError(f"{name}={value!r} is no {'integer' if kind is Integral else 'number'}")
            if not low <= value <= high:
                raise ValueError(f"{name}={value} is outside [{low}, {high}]")
        if self.seed is not None and not (isinstance(self.seed, Integral) and self.seed >= 0):
            raise ValueError(f"seed={self.seed!r} is no integer of at least 0")
        for setting in fields(self):
            value = getattr(self, setting.name)
            if isinstance(setting.default, bool) and not isinstance(value, bool):
                raise ValueError(f"{setting.name}={value!r} is not supported; use True or False")
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(f"min_new_tokens={self.min_new_tokens} exceeds max_new_tokens={self.max_new_tokens}")
        if self.num_beams > 1 and (self.samples or self.n > 1 or self.log_probs):
            raise ValueError(f"num_beams={self.num_beams} goes with neither do_sample, n nor log_probs")
        if self.num_beams > 1 and (self.frequency_penalty or self.presence_penalty or self.logit_bias):
            raise ValueError(
                f"num_beams={self.num_beams} goes with neither frequency_penalty, presence_penalty nor logit_bias"
            )
        unfit = [name for name in _UNCONSTRAINED if getattr(self, name) != getattr(type(self), name)]
        if self.response_format is not None and unfit:
            raise ValueError(f"response_format goes with no {unfit[0]}")
        if self.n > 1 and not self.samples:
            raise ValueError(f"n={self.n} answers of a greedy generation would be equal; set do_sample=True")
        if self.top_logprobs and not self.log_probs:
            raise ValueError(f"top_logprobs={self.top_logprobs} needs log_probs=True")

    @property
    def samples(self) -> bool:
        """Whether tokens are sampled."""
        return self.do_sample and self.temperature > 0

    @property
    def is_greedy(self) -> bool:
        """Whether every token is the argmax of the unchanged logits, or of those that response_format leaves, without
        log-probabilities."""
        changed = self.penalises or self.logit_bias or self.no_repeat_ngram_size or self.bad_token_ids
        return not (self.samples or self.log_probs or self.min_new_tokens or changed)

    @property
    def penalises(self) -> bool:
        """Whether logits depend on the tokens generated before by a penalty."""
        return bool(self.repetition_penalty != 1.0 or self.frequency_penalty or self.presence_penalty)

    def require_vocabulary(self, size: int) -> None:
        """Refuse a logit_bias of ids that a model of `size` logits does not have.

        Raises:
            ValueError: names the id.
        """
        for token, _ in self.logit_bias:
            if token >= size:
                raise ValueError(f"logit_bias has token id {token}; the model has {size} tokens")


def _bias_pairs(logit_bias) -> tuple[tuple[int, float], ...]:
    """Pairs (id, bias) of a dict, whose ids may be texts of digits as in JSON, or of pairs."""
    try:
        pairs = dict(logit_bias or {}).items()
    except (TypeError, ValueError):
        raise ValueError(f"logit_bias={logit_bias!r} is no dict of token ids and numbers") from None
    for token, bias in pairs:
        if not str(token).isdecimal() or isinstance(token, bool):
            raise ValueError(f"logit_bias has the key {token!r}; token ids are integers of at least 0")
        if isinstance(bias, bool) or not isinstance(bias, Real) or not abs(bias) <= MAX_BIAS:
            raise ValueError(f"logit_bias has {bias!r} for token id {token}; a bias is in [-{MAX_BIAS}, {MAX_BIAS}]")
    return tuple((int(token), float(bias)) for token, bias in pairs)


MAX_BIAS = 100  # OpenAI's
MAX_NEW_TOKENS = 1 << 20
_UNCONSTRAINED = ("num_beams", "ignore_eos", "min_new_tokens", "no_repeat_ngram_size")  # may leave no token to choose
_RANGES = (
    ("max_new_tokens", Integral, 1, MAX_NEW_TOKENS),
    ("min_new_tokens", Integral, 0, MAX_NEW_TOKENS),
    ("temperature", Real, 0, 1e30),
    ("top_k", Integral, 0, float("inf")),
    ("top_p", Real, 0, 1),
    ("min_p", Real, 0, 1),
    ("repetition_penalty", Real, 1e-6, 1e6),
    ("frequency_penalty", Real, -2, 2),
    ("presence_penalty", Real, -2, 2),
    ("no_repeat_ngram_size", Integral, 0, float("inf")),
    ("n", Integral, 1, 128),
    ("num_beams", Integral, 1, 64),
    ("length_penalty", Real, -32, 32),
    ("top_logprobs", Integral, 0, 20),
)
_NAMES = {field.name for field in fields(GenerationConfig)}


def generation_config(config=None, **settings) -> GenerationConfig:
    """A `GenerationConfig` from a dict or a config object.

    Args:
        config: a dict, a `GenerationConfig`, or PaddleNLP's or transformers' class, of which the settings that are not
            its defaults count; None: the defaults.
        settings: override those of config.
    Raises:
        ValueError: a setting that is not supported or out of range; names it.
        TypeError: config has none of the accepted types.
    """
    if isinstance(config, GenerationConfig):
        return replace(config, **settings) if settings else config
    if config is None or isinstance(config, dict):
        return GenerationConfig(**{**(config or {}), **settings})
    if hasattr(config, "to_diff_dict"):
        return GenerationConfig(**{**_from_object(config), **settings})
    raise TypeError(f"generation_config is a dict or a GenerationConfig, not {type(config).__name__}")


def _from_object(config) -> dict:
    """The settings of PaddleNLP's or transformers' config object."""
    if type(config).__module__.startswith("transformers"):
        return config.to_diff_dict()  # what differs from the defaults
    settings = config.to_dict()
    for bound in ("max", "min"):  # PaddleNLP counts new tokens in either
        length = settings.pop(f"{bound}_length", 0)
        settings |= {f"{bound}_new_tokens": length} if length else {}
    return settings
