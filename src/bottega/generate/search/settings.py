"""What is asked of a search, and which settings exclude each other. Imports no torch.

A setting that would have no effect is refused by name, as is one that contradicts another: nothing is ignored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bottega.core.errors import UserError

Method = Literal["sample", "beam", "contrastive", "best_of", "self_consistency"]
EarlyStopping = bool | Literal["never"]

# What every search obeys: how long, where to end, and what changes the model's scores themselves.
OBEYED = frozenset(
    {
        *("max_new_tokens", "min_new_tokens", "stop", "stop_token_ids", "stop_regex"),
        *("include_stop_str", "ignore_eos", "seed"),
        *("repetition_penalty", "presence_penalty", "frequency_penalty", "penalty_range", "no_repeat_ngram_size"),
        *("dry_multiplier", "dry_base", "dry_allowed_length", "dry_range", "dry_breakers"),
        *("logit_bias", "allowed_tokens", "banned_words"),
        *("stop_token", "dry_breaker", "allowed_word", "banned_word"),  # as verbs name them
    }
)
# What only those obey that draw.
DRAWN = frozenset(
    {
        *("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "top_n_sigma"),
        *("top_a", "top_h", "tail_free", "xtc_probability", "xtc_threshold", "mirostat", "mirostat_tau"),
        *("mirostat_eta", "dynatemp_range", "dynatemp_exponent", "samplers"),
    }
)
ALSO_OBEYED = {"beam": frozenset({"trace"}), "contrastive": frozenset({"top_k"})}


@dataclass(frozen=True)
class Search:
    """Settings of a search; the defaults mean none.

    `length_penalty`, `early_stopping` and `num_return_sequences` are transformers', `patience` is Kasai et al.'s.
    `dola_layers` is "low", "high" or the numbers of layers (0 is the embedding).
    """

    num_beams: int = 1
    num_return_sequences: int = 1
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = False
    patience: float = 1.0
    num_beam_groups: int = 1
    diversity_penalty: float = 0.0
    penalty_alpha: float = 0.0
    dola_layers: Literal["low", "high"] | tuple[int, ...] | None = None
    guidance_scale: float = 1.0
    best_of: int = 1
    self_consistency: int = 1
    answer_pattern: str | None = None

    def __post_init__(self) -> None:
        """Raise UserError naming what is out of range, without effect, or contradictory."""
        self._require_ranges()
        self._require_reasons()
        methods = {
            "num_beams": self.num_beams > 1,
            "penalty_alpha": self.penalty_alpha > 0,
            "best_of": self.best_of > 1,
            "self_consistency": self.self_consistency > 1,
        }
        _require_one(methods, "Each is a way to search by itself: leave one out.")
        contrasts = {"penalty_alpha": self.penalty_alpha > 0, "dola_layers": self.dola_layers is not None}
        _require_one(
            contrasts | {"guidance_scale": self.guidance_scale != 1}, "Each changes the scores in its own way."
        )

    @property
    def method(self) -> Method:
        """How sequences are found."""
        if self.num_beams > 1:
            return "beam"
        if self.penalty_alpha > 0:
            return "contrastive"
        if self.self_consistency > 1:
            return "self_consistency"
        return "best_of" if self.best_of > 1 else "sample"

    @property
    def is_none(self) -> bool:
        """Whether nothing is asked: one answer, token by token, of the model's own scores."""
        return self == Search()

    def require_guided(self) -> None:
        """Raise UserError if a negative prompt would have no effect."""
        if self.guidance_scale == 1:
            raise UserError("negative_prompt needs guidance_scale other than 1", hint="Give both, or neither.")

    def rows(self, top_k: int) -> int:
        """Most sequences under way at a time; contrastive search tries `top_k`."""
        rows = top_k if self.method == "contrastive" else max(self.num_beams, self.best_of, self.self_consistency)
        return rows if self.guidance_scale == 1 else 2 * rows

    def require_obeyed(self, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        """Raise UserError if a setting of the request contradicts the search, or would be ignored by it.

        Args:
            given: the request's settings by name.
            defaults: what they are when nobody gives them.
        """
        method = self.method
        name = {"beam": "num_beams", "contrastive": "penalty_alpha", "sample": "dola_layers"}.get(method, method)
        if method == "sample" and self.dola_layers is None:
            name = "guidance_scale"
        if given["max_new_tokens"] < 1:
            raise UserError(f"max_new_tokens is 0 with {name}: there is nothing to search")
        if method in ("best_of", "self_consistency") and given["temperature"] == 0:
            raise UserError(f"temperature 0 with {name}: all samples would be the same", hint="Use 0.7, say.")
        if method == "contrastive" and given["top_k"] < 2:
            raise UserError(
                f"penalty_alpha chooses among the top_k most probable tokens, and top_k is {given['top_k']}",
                hint="Give top_k of at least 2 (Su et al. use 4 to 8).",
            )
        draws = method not in ("beam", "contrastive")
        obeyed = OBEYED | ALSO_OBEYED.get(method, frozenset()) | (DRAWN if draws else frozenset())
        for setting, value in given.items():
            greedy = setting == "temperature" and value in (0, 1)
            if setting not in obeyed and value != defaults[setting] and not greedy:
                why = "nothing is drawn" if setting in DRAWN else "a search does not use it"
                raise UserError(f"{setting} and {name} exclude each other: {why}", hint="Leave one out.")

    def _require_ranges(self) -> None:
        groups, layers = self.num_beam_groups, self.dola_layers
        rules = {
            "num_beams": (1 <= self.num_beams <= 1024, "1 to 1024"),
            "num_return_sequences": (self.num_return_sequences >= 1, "at least 1"),
            "length_penalty": (-10 <= self.length_penalty <= 10, "-10 to 10"),
            "early_stopping": (self.early_stopping in (True, False, "never"), "true, false or never"),
            "patience": (0 < self.patience <= 100, "above 0, at most 100"),
            "num_beam_groups": (
                groups >= 1 and self.num_beams % groups == 0,
                f"a divisor of num_beams, {self.num_beams}",
            ),
            "diversity_penalty": (0 <= self.diversity_penalty <= 100, "0 to 100"),
            "penalty_alpha": (0 <= self.penalty_alpha <= 1, "0 to 1"),
            "dola_layers": (
                layers in (None, "low", "high") or (isinstance(layers, tuple) and layers and min(layers) >= 0),
                "low, high, or numbers of layers such as 0,2,4",
            ),
            "guidance_scale": (math.isfinite(self.guidance_scale), "a number"),
            "best_of": (1 <= self.best_of <= 1024, "1 to 1024"),
            "self_consistency": (1 <= self.self_consistency <= 1024, "1 to 1024"),
            "answer_pattern": (
                self.answer_pattern is None or _is_pattern(self.answer_pattern),
                "a regular expression that is not empty",
            ),
        }
        for name, (good, wanted) in rules.items():
            if not good:
                raise UserError(f"{name} is {getattr(self, name)!r}", hint=f"It must be {wanted}.")

    def _require_reasons(self) -> None:
        """A setting that only means something beside another is refused without it."""
        needs = {
            "length_penalty": (self.length_penalty != 1, "num_beams above 1", self.num_beams > 1),
            "early_stopping": (self.early_stopping is not False, "num_beams above 1", self.num_beams > 1),
            "patience": (self.patience != 1, "early_stopping true", self.early_stopping is True),
            "num_beam_groups": (self.num_beam_groups > 1, "diversity_penalty above 0", self.diversity_penalty > 0),
            "diversity_penalty": (self.diversity_penalty > 0, "num_beam_groups above 1", self.num_beam_groups > 1),
            "answer_pattern": (bool(self.answer_pattern), "self_consistency above 1", self.self_consistency > 1),
        }
        for name, (given, need, is_met) in needs.items():
            if given and not is_met:
                raise UserError(f"{name} needs {need}", hint=f"Give both, or leave {name} out.")
        found = max(math.ceil(self.num_beams * min(self.patience, 1)), self.best_of)
        if self.num_return_sequences > found:
            raise UserError(
                f"num_return_sequences is {self.num_return_sequences}; num_beams, patience and best_of find {found}",
                hint="Raise one of them.",
            )


def parse_layers(text: str | None) -> Literal["low", "high"] | tuple[int, ...] | None:
    """`low`, `high` or `0,2,4` as `Search.dola_layers` has it; raises UserError."""
    if text is None or text in ("low", "high"):
        return text
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"dola_layers is {text!r}", hint="It must be low, high, or numbers such as 0,2,4.") from None


def premature_layers(layers: int, chosen: Literal["low", "high"] | Sequence[int], *, tied: bool) -> list[int]:
    """DoLa's candidates among a model's `layers`: the even ones of its lower or upper half (of 20 if it has over 40).

    With `tied` embeddings "low" leaves the first two out: there the head sees its own embedding. Raises UserError
    naming a layer that the model does not have.
    """
    if not isinstance(chosen, str):
        if wrong := [layer for layer in chosen if not 0 <= layer < layers]:
            raise UserError(f"dola_layers names {wrong[0]}, early layers of this model are 0 to {layers - 1}")
        return sorted(set(chosen))
    if chosen == "high":
        return list(range(layers // 2 if layers <= 40 else layers - 20, layers, 2))
    first = min(2, layers // 2) if tied else 0
    return list(range(first, layers // 2 if layers <= 40 else 20, 2)) or [first]


def _require_one(given: Mapping[str, bool], why: str) -> None:
    names = [name for name, there in given.items() if there]
    if len(names) > 1:
        raise UserError(f"{names[0]} and {names[1]} exclude each other", hint=why)


def _is_pattern(text: str) -> bool:
    try:
        return bool(text and re.compile(text))
    except (re.error, OverflowError, RecursionError):
        return False
