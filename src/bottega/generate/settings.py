"""The settings of one request, checked when they are made. Imports no torch.

Each setting's formula and source stand in docs/decoding.md; every default is "off". Words come as token ids here:
`bottega.generate.words` makes them from strings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import inf, isfinite

from bottega.core.errors import UserError, did_you_mean

# Below this temperature logits divided by it leave float32's range, and the draw is the greedy one anyway.
LEAST_TEMPERATURE = 1e-5

# What ends an answer spans at most so many characters: a pattern like `.*x` would hold its text back for ever.
LONGEST_MATCH = 1000

# The order in which samplers follow each other. transformers' (its own in its order, then those it lacks) is the
# default; llama.cpp's ends with the temperature, so that its truncation does not depend on it.
TRANSFORMERS_ORDER = (
    *("penalties", "dry", "temperature", "top_h", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff"),
    *("eta_cutoff", "top_n_sigma", "tail_free", "top_a", "xtc"),
)
LLAMA_CPP_ORDER = (*("penalties", "dry", "top_n_sigma", "top_k", "typical_p", "top_p", "min_p", "xtc", "temperature"),)
ORDERS = {"transformers": TRANSFORMERS_ORDER, "llama.cpp": LLAMA_CPP_ORDER}
CHANGES_SCORES = frozenset({"penalties", "dry", "temperature"})
# These may cut the most probable token off, which temperature 0 asks for.
CUTS_THE_BEST = ("typical_p", "xtc_probability", "mirostat", "dynatemp_range")


@dataclass(frozen=True)
class Sampling:
    """How a request's tokens are chosen and where its answer ends.

    `temperature` 0 (below 1e-5) is greedy. Raises UserError naming the setting that is out of range or contradicts
    another.
    """

    max_new_tokens: int = 128  # 0: only the prompt is run
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int = 0

    # What truncates, beside top_k, top_p and min_p.
    typical_p: float = 1.0
    epsilon_cutoff: float = 0.0
    eta_cutoff: float = 0.0
    top_n_sigma: float = 0.0
    top_a: float = 0.0
    top_h: float = 0.0
    tail_free: float = 1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    mirostat: int = 0
    mirostat_tau: float = 5.0  # bits
    mirostat_eta: float = 0.1
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    samplers: tuple[str, ...] = ()  # their order; (): transformers'

    # What repeats less.
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_range: int = 0  # the last so many tokens; 0: all
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_range: int = 0  # the last so many tokens; 0: all
    dry_breakers: frozenset[tuple[int, ...]] = frozenset()
    no_repeat_ngram_size: int = 0

    # What may be said at all.
    logit_bias: tuple[tuple[int, float], ...] = ()
    allowed_tokens: tuple[int, ...] = ()  # (): all
    banned_words: tuple[tuple[int, ...], ...] = ()

    # Where it ends.
    min_new_tokens: int = 0
    ignore_eos: bool = False
    stop_token_ids: tuple[int, ...] = ()
    stop_regex: str | None = None
    include_stop_str: bool = False

    # What is told about it.
    logprobs: bool = False
    logprobs_temperature: float = 1.0  # log-probabilities are those of the logits over this; 1: the model's own
    prompt_logprobs: int | None = None
    prompt_logprob_ids: tuple[int, ...] = ()  # tokens that are told behind the likeliest ones, wherever they rank
    prompt_logprobs_from: int = 1  # the first token of the prompt that is scored; nothing predicts token 0
    trace: bool = False

    def __post_init__(self) -> None:
        for name, (good, wanted) in self._rules().items():
            if not good:
                raise UserError(f"{name} is {getattr(self, name)!r}", hint=f"It must be {wanted}.")
        self._check_together()
        self._check_order()

    @property
    def is_greedy(self) -> bool:
        """Whether the most probable token is taken each time."""
        return self.temperature < LEAST_TEMPERATURE and not self.dynatemp_range

    @property
    def wants_logprobs(self) -> bool:
        """Whether the chosen token's log-probability is told."""
        return self.logprobs or self.top_logprobs > 0

    @cached_property
    def chain(self) -> tuple[str, ...]:
        """Names of the samplers that have something to do, in their order; greedy keeps those that decide."""
        chain = [name for name in self._order if name in self._active]
        if self.is_greedy:  # what only cuts a tail leaves the best token where it is
            chain = [name for name in chain if name != "temperature"]
            while chain and chain[-1] not in CHANGES_SCORES:
                chain.pop()
        elif self.mirostat:
            chain.append(f"mirostat_{self.mirostat}")
        return tuple(chain)

    def for_model(self, vocab_size: int, stop_ids: frozenset[int]) -> Sampling:
        """These settings with the model's own stop tokens beside the request's, unless it ignores them.

        Raises UserError if a token id is none of the model's.
        """
        named = {
            "logit_bias": [token for token, _ in self.logit_bias],
            "allowed_tokens": self.allowed_tokens,
            "banned_words": [token for word in self.banned_words for token in word],
            "stop_token_ids": self.stop_token_ids,
            "prompt_logprob_ids": self.prompt_logprob_ids,
        }
        for name, tokens in named.items():
            wrong = next((token for token in tokens if not 0 <= token < vocab_size), None)
            if wrong is not None:
                raise UserError(f"{name} has token id {wrong}", hint=f"The model has the ids 0 to {vocab_size - 1}.")
        own = frozenset[int]() if self.ignore_eos else stop_ids
        return replace(self, stop_token_ids=tuple(sorted(own | set(self.stop_token_ids))))

    @cached_property
    def _order(self) -> tuple[str, ...]:
        if not self.samplers:
            return TRANSFORMERS_ORDER
        return ORDERS.get(self.samplers[0], self.samplers)

    @cached_property
    def _active(self) -> frozenset[str]:
        on = {
            "penalties": self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0,
            "dry": self.dry_multiplier > 0,
            "temperature": self.temperature != 1 or self.dynatemp_range > 0,
            "top_h": self.top_h > 0,
            "top_k": self.top_k > 0,
            "top_p": self.top_p < 1,
            "min_p": self.min_p > 0,
            "typical_p": self.typical_p < 1,
            "epsilon_cutoff": self.epsilon_cutoff > 0,
            "eta_cutoff": self.eta_cutoff > 0,
            "top_n_sigma": self.top_n_sigma > 0,
            "tail_free": self.tail_free < 1,
            "top_a": self.top_a > 0,
            "xtc": self.xtc_probability > 0,
        }
        return frozenset(name for name, is_on in on.items() if is_on)

    def _rules(self) -> dict[str, tuple[bool, str]]:
        """Of each setting, whether it is good and what it must be. (Comparisons with NaN are false.)"""
        bounds: dict[str, tuple[float, float]] = {
            "max_new_tokens": (0, inf),
            "min_new_tokens": (0, inf),
            "temperature": (0, 1e6),
            "top_k": (0, inf),
            "repetition_penalty": (0.01, 100),
            "presence_penalty": (-100, 100),
            "frequency_penalty": (-100, 100),
            "penalty_range": (0, inf),
            "dry_range": (0, inf),
            "dry_multiplier": (0, 1e6),
            "dry_base": (1, 100),
            "dry_allowed_length": (1, inf),
            "no_repeat_ngram_size": (0, inf),
            "top_logprobs": (0, 100),
            "logprobs_temperature": (LEAST_TEMPERATURE, 1e6),
            "top_n_sigma": (0, 1e6),
            "top_h": (0, 1),
            "top_a": (0, 1),
            "xtc_probability": (0, 1),
            "mirostat": (0, 2),
            "mirostat_tau": (0, 100),
            "mirostat_eta": (0, 10),
            "dynatemp_range": (0, 1e6),
            "dynatemp_exponent": (0, 100),
        }
        rules = {
            name: (low <= getattr(self, name) <= high, f"{low:g} or more" if high == inf else f"{low:g} to {high:g}")
            for name, (low, high) in bounds.items()
        }
        for name in ("top_p", "typical_p", "tail_free"):
            rules[name] = (0 < getattr(self, name) <= 1, "above 0, at most 1 (off)")
        for name in ("min_p", "epsilon_cutoff", "eta_cutoff"):
            rules[name] = (0 <= getattr(self, name) < 1, "0 (off) or more, below 1")
        rules["xtc_threshold"] = (0 < self.xtc_threshold <= 0.5, "above 0, at most 0.5 (beyond, it could cut nothing)")
        rules["seed"] = (self.seed is None or 0 <= self.seed < 2**63, "0 or more, below 2^63")
        rules["prompt_logprobs_from"] = (self.prompt_logprobs_from >= 1, "1 or more")
        rules["prompt_logprobs"] = (self.prompt_logprobs is None or 0 <= self.prompt_logprobs <= 100, "0 to 100")
        fits = isinstance(self.stop, tuple) and all(0 < len(text) <= LONGEST_MATCH for text in self.stop)
        rules["stop"] = (fits, f"a tuple of texts of 1 to {LONGEST_MATCH} characters")
        rules["banned_words"] = (all(self.banned_words), "sequences of at least one token")
        rules["dry_breakers"] = (all(self.dry_breakers), "sequences of at least one token")
        biases = [bias for _, bias in self.logit_bias]
        rules["logit_bias"] = (all(isfinite(bias) and abs(bias) <= 1000 for bias in biases), "-1000 to 1000 each")
        return rules

    def _check_together(self) -> None:
        truncating = sorted(self._active - CHANGES_SCORES)
        if self.mirostat and truncating:
            raise UserError(
                f"mirostat and {truncating[0]} are both set",
                hint="Mirostat chooses by itself how much to cut off; leave the other out.",
            )
        if self.temperature < LEAST_TEMPERATURE:
            on = {"typical_p": self.typical_p < 1, "xtc_probability": self.xtc_probability > 0}
            on |= {"mirostat": self.mirostat > 0, "dynatemp_range": self.dynatemp_range > 0}
            for name in CUTS_THE_BEST:
                if on[name]:
                    raise UserError(
                        f"temperature is {self.temperature!r} and {name} is {getattr(self, name)!r}",
                        hint=f"Temperature 0 takes the most probable token, which {name} does not; leave one out.",
                    )
        if self.min_new_tokens > self.max_new_tokens:
            raise UserError(f"min_new_tokens is {self.min_new_tokens}, max_new_tokens {self.max_new_tokens}")
        if self.prompt_logprobs is None and (self.prompt_logprob_ids or self.prompt_logprobs_from > 1):
            raise UserError("prompt_logprob_ids and prompt_logprobs_from need prompt_logprobs")
        banned = {word[0] for word in self.banned_words if len(word) == 1}
        if self.allowed_tokens and banned.issuperset(self.allowed_tokens):
            raise UserError("banned_words bans every one of the allowed_tokens")

    def _check_order(self) -> None:
        if len(self.samplers) == 1 and self.samplers[0] in ORDERS:
            pass
        elif wrong := [name for name in self.samplers if name not in TRANSFORMERS_ORDER]:
            known = [*TRANSFORMERS_ORDER, *ORDERS]
            raise UserError(f"samplers names {wrong[0]!r}", hint=did_you_mean(wrong[0], known))
        elif len(set(self.samplers)) < len(self.samplers):
            raise UserError("samplers names one sampler twice")
        left_out = sorted(self._active - set(self._order))
        if self.is_greedy:  # whatever its place, temperature 0 takes the best
            left_out = [name for name in left_out if name != "temperature"]
        if left_out:
            raise UserError(
                f"samplers leaves out {left_out[0]}, which is set", hint="Name it, or leave it at its default."
            )
