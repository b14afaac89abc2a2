"""What a plan knows of the engine's settings from headers: whether they can be obeyed, and what memory they take."""

from __future__ import annotations

from pathlib import Path

from bottega.checkpoint.hub import locate
from bottega.checkpoint.spec import ModelSpec
from bottega.core.errors import UserError
from bottega.core.plan import PROCESS_BYTES, Check, Specs
from bottega.generate.config import OnEngine

GROUP = 32  # weights that share a scale (model/kernels)
CACHE_BITS = {"auto": 32, "float32": 32, "bfloat16": 16, "int8": 10}  # at most; int8 with its scales


def engine_checks(config: OnEngine, model: Path | str, spec: ModelSpec, specs: Specs) -> list[Check]:
    """The settings that a model, or the chosen device, may be unable to obey."""
    checks = []
    if config.weights is not None:
        sizes = spec.config.sizes()
        odd = [sizes[name] for name in ("hidden", "intermediate", "query") if sizes[name] % GROUP]
        if config.device in ("cuda", "mps"):
            checks.append(Check("weights", False, f"{config.weights} needs --device cpu"))
        elif odd and config.weights != "bfloat16":
            problem = f"{config.weights} scales {GROUP} weights at a time, and the model has rows of {odd[0]}"
            checks.append(Check("weights", False, f"{problem}: use --weights bfloat16"))
        else:
            checks.append(Check("weights", True, config.weights))
    if config.speculate == "early-exit":
        layers = spec.config.num_hidden_layers
        fits = layers > 1 and (config.draft_layers or 1) < layers
        checks.append(Check("draft layers", fits, f"fewer than the model's {layers}"))
    if config.draft_model is not None:
        checks.append(_draft_check(config.draft_model, model, spec, specs))
    return checks


def _draft_check(draft: str, model: Path | str, spec: ModelSpec, specs: Specs) -> Check:
    """Whether the draft model says the model's tokens. Only tokenizers that differ are loaded."""
    other = specs.of(Path(draft), ModelSpec)
    if not other.has_tokenizer or not spec.has_tokenizer:
        return Check("draft model", other.has_tokenizer, "is there" if other.has_tokenizer else "it has no tokenizer")
    known = not specs.is_predicted(Path(draft)) and not specs.is_predicted(Path(model))
    if not known or (spec.tokenizer_hash and spec.tokenizer_hash == other.tokenizer_hash):
        return Check("draft model", True, draft)
    from bottega.generate.speculate.draft import common_vocabulary
    from bottega.tokenizer.tokenizer import Tokenizer

    try:
        pair = Tokenizer.load(locate(Path(draft))), Tokenizer.load(locate(Path(model)))
        common_vocabulary(other.config, spec.config, pair)
    except UserError as error:
        return Check(
            "draft model", False, f"{error.message}. {error.hint}".removeprefix("draft model: ").rstrip(". ") + "."
        )
    return Check("draft model", True, draft)


def generation_memory(
    spec: ModelSpec, tokens: int, sequences: int = 1, *, config: OnEngine | None = None, specs: Specs | None = None
) -> int:
    """Bytes of a process that holds the model, and a cache of `sequences` of `tokens`.

    The weights are read in float32 at most, and packed afterwards, layer by layer: narrower ones do not lower the peak.
    """
    bits = CACHE_BITS[config.cache_dtype] if config is not None else 32
    tokens = min(tokens, spec.config.context_length)
    if config is not None and config.cache_tokens is not None:
        tokens = min(tokens, config.cache_tokens)
    needed = _weights(spec) + sequences * spec.config.kv_cache_bytes(tokens, bytes_per_value=1) * bits // 8
    if config is not None and config.draft_model is not None and specs is not None:
        draft = specs.of(Path(config.draft_model), ModelSpec)
        held = min(tokens, draft.config.context_length)
        needed += _weights(draft) + sequences * draft.config.kv_cache_bytes(held, bytes_per_value=4)
    return PROCESS_BYTES + needed


def _weights(spec: ModelSpec) -> int:
    return max(spec.nbytes, 4 * spec.config.parameter_count())
