"""`bottega show MODEL`: what a model is and what it needs, from its headers alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from bottega.checkpoint.config import ModelConfig
from bottega.checkpoint.folder import weight_files
from bottega.checkpoint.hub import locate
from bottega.checkpoint.spec import ModelSpec
from bottega.core.plan import Check, Plan, Specs
from bottega.core.schema import Config
from bottega.core.verb import Context, Result
from bottega.core.view import Block, Spans, Table, human_bytes, human_count

# Bytes per parameter. Scales and what stays unquantised come on top of the last two.
PRECISIONS = {"float32": 4.0, "bfloat16": 2.0, "int8": 1.0, "4-bit": 0.5}
SIZES = (
    "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size",
)  # fmt: skip
KV_BYTES = {"float32": 4, "bfloat16": 2}
_PART_NAMES = {
    "embedding": "embedding",
    "attention": "attention",
    "feed_forward": "feed-forward",
    "norms": "norms",
    "head": "output layer",
}


class ShowModel(Config):
    """Settings of `bottega show`."""

    model: str
    """Model folder, or org/name[@revision] of the hub."""
    context: list[Annotated[int, Field(ge=1)]] = [1024, 8192, 32768]
    """Numbers of tokens for which to tell the size of the KV cache (batch 1)."""


def plan_show(config: ShowModel, specs: Specs) -> Plan:
    """Open the folder's headers; what fails there fails here."""
    folder = locate(config.model)
    spec = specs.of(folder, ModelSpec)
    return Plan(
        "show",
        config,
        inputs={"model": folder},
        checks=[Check("model", True, f"{len(spec.tensors)} tensors as its config says")],
        work=["read the headers"],
        details={"spec": spec},
    )


def run_show(plan: Plan, context: Context) -> Result:  # noqa: ARG001 (a verb's run has this form)
    """Tell what the headers tell."""
    assert isinstance(plan.config, ShowModel)
    folder = plan.inputs["model"]
    data = describe(plan.details["spec"], folder, plan.config.context)
    return Result(data, view(data))


def describe(spec: ModelSpec, folder: Path, contexts: Sequence[int]) -> dict[str, Any]:
    """Everything `show` says, as data. Sizes in bytes."""
    config, total = spec.config, spec.config.parameter_count()
    files = [{"name": path.name, "bytes": path.stat().st_size} for path in weight_files(folder)]
    return {
        "path": str(folder),
        "architecture": config.family.architecture,
        "config": config.to_data(),
        "parameters": {**config.parameters_by_part(), "total": total, "active": config.active_parameter_count()},
        "sizes": {name: getattr(config, name) for name in SIZES},
        "switches": _switches(config),
        "dtypes": dict(Counter(info.dtype for info in spec.tensors.values())),
        "stored_bytes": sum(file["bytes"] for file in files) if spec.quantised else spec.nbytes,
        "quantised": spec.quantised,
        "memory_bytes": {name: int(total * size) for name, size in PRECISIONS.items()},
        "context_length": config.context_length,
        "kv_cache_bytes": {
            str(tokens): {name: config.kv_cache_bytes(tokens, 1, size) for name, size in KV_BYTES.items()}
            for tokens in contexts
        },
        "special_tokens": {
            "bos": config.bos_token_id,
            "stop": list(spec.stop_ids),
            "pad": config.pad_token_id,
            "text": spec.tokens,
        },
        "has_tokenizer": spec.has_tokenizer,
        "template": spec.template,
        "licence": spec.licence,
        "parents": list(spec.parents),
        "files": files,
    }


def _switches(config: ModelConfig) -> dict[str, str]:
    """What tells this model from a plain Llama, in words."""
    switches, experts = config.switches, config.switches.experts
    windows = [window for window in switches.windows if window]
    positions = {
        "rotary": f"rotary, base {config.rope_theta:g}",
        "learned": "learned",
        "alibi": "linear biases (ALiBi)",
    }
    said = {"positions": positions[switches.positions]}
    if switches.positions == "rotary":
        scaling = config.rope_scaling or {}
        if scaling:
            said["positions"] += f", {scaling['rope_type']} scaling, factor {scaling.get('factor', 'by pair')}"
        if config.partial_rotary_factor != 1:
            said["positions"] += f", on {config.partial_rotary_factor:.0%} of a head"
        if None in switches.layer_ropes:
            said["positions"] += f", none in {switches.layer_ropes.count(None)} layers"
    if windows:
        said["window"] = f"{windows[0]:,} tokens in {len(windows)} of {config.num_hidden_layers} layers"
    if experts:
        shared = " and one that all tokens pass" if experts.shared_intermediate_size else ""
        said["experts"] = f"{experts.per_token} of {experts.count} for a token{shared}"
    feed = "gated" if switches.gated else "plain"
    said["feed-forward"] = f"{feed}, {config.hidden_act}"
    said["norm"] = f"{'LayerNorm' if switches.norm == 'layer' else 'RMSNorm'}, {switches.placement}"
    caps = {"scores": switches.score_cap, "logits": switches.logit_cap}
    if any(caps.values()):
        said["capped"] = ", ".join(f"{name} at {cap:g}" for name, cap in caps.items() if cap)
    return said


def view(data: dict[str, Any]) -> list[Block]:
    """The same for people."""
    total = data["parameters"]["total"]
    parts = [
        (name, f"{data['parameters'][part]:,}", f"{data['parameters'][part] / total:.1%}")
        for part, name in _PART_NAMES.items()
    ]
    tied = " (the output layer is the embedding)" if data["config"]["tie_word_embeddings"] else ""
    longer = [tokens for tokens in data["kv_cache_bytes"] if int(tokens) > data["context_length"]]
    blocks: list[Block] = [
        Table(data["path"], ("", ""), _facts(data)),
        Table("Parameters", ("part", "count", "share"), [*parts, ("total", f"{total:,}", "100.0%")], tied.strip(" ()")),
        Table(
            "Memory of the weights",
            ("precision", "size"),
            [(name, human_bytes(size)) for name, size in data["memory_bytes"].items()],
            "int8 and 4-bit without their scales",
        ),
        Table(
            "KV cache, batch 1",
            ("tokens", *KV_BYTES),
            [
                (f"{int(tokens):,}", *(human_bytes(size) for size in sizes.values()))
                for tokens, sizes in data["kv_cache_bytes"].items()
            ],
            f"the model was made for {data['context_length']:,} tokens" if longer else "",
        ),
    ]
    if data["template"]:
        blocks.append(Spans("Chat template", [(data["template"], "plain")]))
    return blocks


def _facts(data: dict[str, Any]) -> list[tuple[str, Any]]:
    sizes, special = data["sizes"], data["special_tokens"]
    words, files = special["text"], len(data["files"])
    return [
        ("architecture", data["architecture"]),
        ("parameters", _parameters(data["parameters"])),
        ("layers × width", f"{sizes['num_hidden_layers']} × {sizes['hidden_size']}"),
        (
            "heads",
            f"{sizes['num_attention_heads']} of {sizes['head_dim']}, {sizes['num_key_value_heads']} of keys and values",
        ),
        *data["switches"].items(),
        ("vocabulary", f"{sizes['vocab_size']:,}"),
        (
            "stored as",
            f"{data['quantised'] or ', '.join(data['dtypes'])}, {human_bytes(data['stored_bytes'])} in {files} file(s)",
        ),
        ("begins with", _token(special["bos"], words.get("bos_token"))),
        ("stops at", ", ".join(str(token) for token in special["stop"]) + _quoted(words.get("eos_token")) or "nothing"),
        ("pads with", _token(special["pad"], words.get("pad_token"))),
        ("tokenizer", "yes" if data["has_tokenizer"] else "none in the folder"),
        ("chat template", "yes" if data["template"] else "none"),
        ("licence", data["licence"] or "not stated"),
        ("made from", ", ".join(data["parents"]) or "not recorded"),
    ]


def _parameters(counts: dict[str, int]) -> str:
    total, active = counts["total"], counts["active"]
    return human_count(total) + (f", {human_count(active)} for a token" if active < total else "")


def _token(token: int | None, text: str | None) -> str:
    return "none" if token is None else f"{token}{_quoted(text)}"


def _quoted(text: str | None) -> str:
    return f" {text!r}" if text else ""
