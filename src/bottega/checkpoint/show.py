"""`bottega show MODEL`: what a model is and what it needs, from its headers alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from bottega.checkpoint.folder import weight_files
from bottega.checkpoint.hub import locate
from bottega.checkpoint.spec import ModelSpec
from bottega.core.plan import Check, Plan, Specs
from bottega.core.schema import Config
from bottega.core.verb import Context, Result
from bottega.core.view import Block, Spans, Table, human_bytes, human_count

# Bytes per parameter. Scales and what stays unquantised come on top of the last two.
PRECISIONS = {"float32": 4.0, "bfloat16": 2.0, "int8": 1.0, "4-bit": 0.5}
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
        "parameters": {**config.parameters_by_part(), "total": total},
        "dtypes": dict(Counter(info.dtype for info in spec.tensors.values())),
        "stored_bytes": spec.nbytes,
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
    config, special = data["config"], data["special_tokens"]
    words = special["text"]
    return [
        ("architecture", data["architecture"]),
        ("parameters", human_count(data["parameters"]["total"])),
        ("layers × width", f"{config['num_hidden_layers']} × {config['hidden_size']}"),
        (
            "heads",
            f"{config['num_attention_heads']} of {config['head_dim']}, "
            f"{config['num_key_value_heads']} of keys and values",
        ),
        ("vocabulary", f"{config['vocab_size']:,}"),
        (
            "stored as",
            f"{', '.join(data['dtypes'])}, {human_bytes(data['stored_bytes'])} in {len(data['files'])} file(s)",
        ),
        ("begins with", _token(special["bos"], words.get("bos_token"))),
        ("stops at", ", ".join(str(token) for token in special["stop"]) + _quoted(words.get("eos_token")) or "nothing"),
        ("pads with", _token(special["pad"], words.get("pad_token"))),
        ("tokenizer", "yes" if data["has_tokenizer"] else "none in the folder"),
        ("chat template", "yes" if data["template"] else "none"),
        ("licence", data["licence"] or "not stated"),
        ("made from", ", ".join(data["parents"]) or "not recorded"),
    ]


def _token(token: int | None, text: str | None) -> str:
    return "none" if token is None else f"{token}{_quoted(text)}"


def _quoted(text: str | None) -> str:
    return f" {text!r}" if text else ""
