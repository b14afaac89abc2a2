"""Settings of a low-rank adapter: the section `adapter` of a recipe. Imports no torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from bottega.core.schema import Config, Names

MAX_RANK = 1 << 14
Base = Literal["none", "nf4", "int8"]
Layers = Annotated[tuple[int, ...], BeforeValidator(lambda value: (value,) if isinstance(value, int) else value)]
TargetModules = str | tuple[str, ...]
"""One text (all-linear, a name, a pattern) or several names."""


class AdapterSettings(Config):
    """What is trained beside a frozen base, and how the base is kept."""

    word: ClassVar[str] = "type"

    type: Literal["lora", "qlora"] = "lora"
    """lora; or qlora, which is lora on a base in four bits (base: nf4)."""
    start: Path | None = None
    """An adapter to go on with: a folder in PEFT's format, or the one that an earlier run left; its settings hold."""
    name: str = Field(default="default", pattern=r"^\w+$")
    """Name among several adapters on one base."""
    r: int = Field(default=16, ge=1, le=MAX_RANK)
    """Rank: the inner size of the two matrices that change each layer."""
    alpha: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """The change is scaled by alpha / r, with use_rslora by alpha / √r (default: 2 r; with pissa r)."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the adapter's inputs that are dropped while it is trained."""
    target_modules: TargetModules = "all-linear"
    """Layers to change: all-linear, names (q_proj), whole paths, or one regular expression over whole paths."""
    exclude_modules: Names = ()
    """Names or paths that are left alone."""
    layers_to_transform: Layers = ()
    """Numbers of the layers to change (default: all)."""
    rank_pattern: dict[str, int] = Field(default_factory=dict)
    """Another rank for the modules of these names: {k_proj: 4}."""
    alpha_pattern: dict[str, float] = Field(default_factory=dict)
    """Another alpha for the modules of these names."""
    use_rslora: bool = False
    """Scale by alpha / √r, so that large ranks learn too (rsLoRA)."""
    use_dora: bool = False
    """Learn the length of each row apart from its direction (DoRA)."""
    init: Literal["default", "pissa"] = "default"
    """default: no change at the start; pissa: the principal part of each matrix is what is trained."""
    pissa_iterations: int = Field(default=16, ge=0)
    """Iterations of the randomised decomposition for pissa; 0 takes the exact one, which is slow."""
    lora_plus_ratio: float = Field(default=1.0, ge=1, allow_inf_nan=False)
    """Learning rate of B over that of A (LoRA+; 16 is usual)."""
    new_tokens: Literal["auto"] | tuple[int, ...] = ()
    """Token ids whose rows of embedding and head are trained; auto: those that a recipe added."""
    modules_to_save: Names = ()
    """Modules that are trained whole and saved with the adapter: embed_tokens, lm_head, norm, score."""
    base: Base = "none"
    """How the frozen base is kept: none (as it is), nf4 (four bits) or int8."""
    double_quant: bool = True
    """Pack the scales of nf4 again (0.37 bits a weight less)."""

    @model_validator(mode="before")
    @classmethod
    def _qlora_means_nf4(cls, values: object) -> object:
        values = {cls.word: values} if isinstance(values, str) else values
        if isinstance(values, dict) and values.get("type") == "qlora" and values.get("base") in (None, "none"):
            return {**values, "base": "nf4"}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> AdapterSettings:
        if self.init == "pissa" and self.use_dora:
            raise ValueError("pissa and use_dora do not go together: both decide what the base is at the start")
        if self.init == "pissa" and self.dropout:
            raise ValueError("pissa and dropout do not go together: a part of the matrix itself would be dropped")
        if self.init == "pissa" and self.base != "none":
            raise ValueError("pissa needs base: none; what it takes away is missing from a base that is rounded first")
        if not self.target_modules:
            raise ValueError("target_modules names nothing to train (PEFT's files need one module that is changed)")
        if wrong := [rank for rank in self.rank_pattern.values() if not 1 <= rank <= MAX_RANK]:
            raise ValueError(f"rank_pattern: a rank lies between 1 and {MAX_RANK}, not at {wrong[0]}")
        if wrong := [alpha for alpha in self.alpha_pattern.values() if not 0 < alpha < float("inf")]:
            raise ValueError(f"alpha_pattern: alpha is a positive number, not {wrong[0]}")
        if isinstance(self.new_tokens, tuple) and any(id_ < 0 for id_ in self.new_tokens):
            raise ValueError("new_tokens are ids of tokens, which are not negative")
        for text in [self.target_modules] if isinstance(self.target_modules, str) else []:
            try:
                re.compile(text)
            except re.error as error:
                raise ValueError(f"target_modules {text!r} is no regular expression: {error}") from None
        return self

    @property
    def lora_alpha(self) -> float:
        """alpha, where it was left open too: 2 r, and with PiSSA r, so that the adapter is the matrix's own part."""
        if self.alpha is not None:
            return self.alpha
        return float(self.r if self.init == "pissa" else 2 * self.r)
