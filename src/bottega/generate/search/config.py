"""A verb's settings of searches. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from bottega.core.schema import Config
from bottega.generate.search.settings import Search, parse_layers

# What no search has to do with: the machine, the model, the question, and the search itself.
_ELSEWHERE = frozenset({"model", "adapter", "device", "dtype", "threads", "weights", "prompt", "chat", "system"})


def _word(value: Any) -> Any:
    """YAML's and Python's true and false are words here."""
    return str(value).lower() if isinstance(value, bool) else value


class Searched(Config):
    """How answers are searched for; the defaults draw one answer token by token."""

    sections = {"num_beams": "Searches (instead of drawing one answer)"}

    num_beams: int = Field(default=1, ge=1)
    """Beam search: keep so many continuations under way, the most probable ones (1: none)."""
    num_return_sequences: int = Field(default=1, ge=1)
    """Give so many of the answers that --num-beams or --best-of find, best first."""
    length_penalty: float = 1.0
    """Beam search ranks by log-probability / length^penalty: above 1 favours long answers, below 1 short ones."""
    early_stopping: Annotated[Literal["false", "true", "never"], BeforeValidator(_word)] = "false"
    """When beam search ends: true with --num-beams answers, never when none better can come, false by a guess."""
    patience: float = 1.0
    """With --early-stopping true, wait for so many times --num-beams answers."""
    num_beam_groups: int = Field(default=1, ge=1)
    """Diverse beam search: split the beams into so many groups that avoid each other's tokens."""
    diversity_penalty: float = 0.0
    """What a token costs a group for each time that an earlier group chose it at the same place."""
    penalty_alpha: float = 0.0
    """Contrastive search: how much likeness to the text so far counts against probability (0.6 with --top-k 4, say)."""
    dola_layers: str | None = None
    """DoLa: contrast the last layer with an early one of these: low, high, or numbers such as 0,2,4."""
    guidance_scale: float = 1.0
    """Classifier-free guidance: above 1 holds to the prompt more closely (1.5, say)."""
    negative_prompt: str | None = None
    """The prompt that guidance leads away from (default: the last token of the prompt)."""
    best_of: int = Field(default=1, ge=1)
    """Draw so many answers and give the one with the highest log-probability per token."""
    self_consistency: int = Field(default=1, ge=1)
    """Draw so many answers and give the result on which most of them agree."""
    answer_pattern: str | None = None
    """Regular expression of the result in an answer, its first group if it has one (default: the last number)."""

    def search(self) -> Search:
        """The settings, checked; raises UserError naming those that contradict each other or would be ignored."""
        own = {name: getattr(self, name) for name in Searched.model_fields if name != "negative_prompt"}
        stopping = {"true": True, "false": False, "never": "never"}
        changed = {"early_stopping": stopping[self.early_stopping], "dola_layers": parse_layers(self.dola_layers)}
        search = Search(**own | changed)
        if self.negative_prompt is not None:
            search.require_guided()
        if not search.is_none:
            fields = type(self).model_fields
            names = fields.keys() - Searched.model_fields.keys() - _ELSEWHERE
            defaults = {name: fields[name].get_default() for name in names}
            search.require_obeyed({name: getattr(self, name) for name in names}, defaults)
        return search
