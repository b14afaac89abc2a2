"""`bottega adapter merge`: adapters made part of their base's weights, one tensor at a time.

An adapter that was trained on a rounded base (QLoRA) is one for the rounded weights. It can be merged into them,
which gives exactly the model that was trained, or into the original ones, which are better on their own and which
the adapter has never seen. What both do to the predictions is measured on the same tokens, whichever is written.
Several adapters are added up, each with its weight: W + Σ w · ΔW.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from bottega.checkpoint.adapter import Adapter, open_adapters
from bottega.checkpoint.adapter_base import AdapterBase, AdapterSpec, adapter_checks, weights_hash
from bottega.checkpoint.card import CardText, write_card
from bottega.checkpoint.config import ModelConfig, places
from bottega.checkpoint.folder import ModelFolder
from bottega.checkpoint.header import TensorInfo
from bottega.checkpoint.hub import locate_planned
from bottega.checkpoint.layout import Place
from bottega.checkpoint.spec import ModelSpec
from bottega.checkpoint.tensors import LazyTensor
from bottega.checkpoint.writer import TensorWriter, write_model_files
from bottega.core.errors import UserError
from bottega.core.machine import memory_check, resolve_threads
from bottega.core.model_files import has_tokenizer
from bottega.core.plan import PROCESS_BYTES, Check, Cost, Plan, Spec, Specs
from bottega.core.schema import Names, Writes
from bottega.core.verb import Context, Result
from bottega.core.view import Block, Table, Text
from bottega.tokenizer.files import write_tokenizer
from bottega.tokenizer.spec import TokenizerSpec
from bottega.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

COPY_BYTES_PER_SECOND = 2e8
MOST_CHARACTERS = 16  # of a token, as a rule
PASS_FLOPS = 2e10  # a few threads, blocks that are read as they are needed
Target = Literal["original", "dequantised"]
Rounding = Literal["auto", "none", "nf4", "int8"]
DType = Literal["auto", "float32", "bfloat16", "float16"]


class MergeAdapter(Writes):
    """Make adapters part of their base's weights, and measure what that does to its predictions."""

    adapter: Names = Field(min_length=1)
    """PEFT adapter: a folder, or org/name of the hub (may be given several times)."""
    model: str | None = None
    """Base, a folder or org/name (default: the one that the adapter names)."""
    weights: tuple[float, ...] = ()
    """Weight of each adapter in the sum (default: 1 each)."""
    into: Target = "original"
    """Merge into the original weights, or into those that the adapter was trained on: rounded, and read back."""
    rounding: Rounding = "auto"
    """How the base was rounded in training; auto: as the adapter says."""
    data: Path | None = None
    """Text to measure the change on (default: a few sentences)."""
    measure: int = Field(default=512, ge=0, le=1 << 20)
    """Tokens to measure on; 0 measures nothing."""
    dtype: DType = "auto"
    """Precision to store; auto: each tensor's own."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads (default: as many as there are cores)."""
    force: bool = False
    """Merge even though the base is not the one that the adapter was trained on."""

    @model_validator(mode="after")
    def _consistent(self) -> MergeAdapter:
        if self.weights and len(self.weights) != len(self.adapter):
            raise ValueError(f"{len(self.adapter)} adapters need as many weights, not {len(self.weights)}")
        return self


def plan_merge(config: MergeAdapter, specs: Specs) -> Plan:
    """Find the base, check that the adapters fit it, say what will be written."""
    plan = Plan("adapter merge", config, config.out)
    adapters = [specs.of(Path(each), AdapterSpec) for each in config.adapter]
    plan.inputs = {f"adapter.{number}": locate_planned(each, specs) for number, each in enumerate(config.adapter)}
    base = base_of(config.model, [each.base for each in adapters], specs)
    spec = specs.of(Path(base), ModelSpec)
    plan.inputs["model"] = folder = locate_planned(base, specs)
    if config.data is not None:
        plan.inputs["data"] = config.data
        plan.checks.append(Check("data", config.data.is_file(), str(config.data)))
    plan.checks += adapter_checks(folder, config.adapter, specs)
    origin = training_base(config, [each.base for each in adapters])
    dequantised = config.into == "dequantised" and origin.rounding == "none"
    detail = "the adapter was trained on the weights as they are; into=dequantised means nothing"
    plan.checks.append(Check("into", not dequantised, detail if dequantised else config.into))
    written = _stored_infos(spec.tensors, config.dtype)
    size = sum(info.nbytes for info in written.values())
    plan.details |= {"base": base, "origin": origin}
    new = _written_config(spec.config, config)
    plan.produces = replace(spec, config=new, tensors=written, quantised="", tokenizer=_tokenizer(plan, specs))
    changed = len(frozenset[str]().union(*(each.changed for each in adapters)))
    plan.work = [f"{changed} of {len(written)} tensors of {base} changed, into {config.out}"]
    if config.measure:
        plan.work.append(f"the change measured on {config.measure} tokens")
    memory = _memory(spec.config, config.measure)
    plan.checks.append(memory_check(memory))
    passes = 0 if not config.measure else 2 if origin.rounding == "none" else 3
    flops = 2.0 * spec.config.active_parameter_count() * config.measure * passes
    seconds = 2.0 + (spec.nbytes * (1 + passes) + size) / COPY_BYTES_PER_SECOND + flops / PASS_FLOPS
    plan.cost = Cost(spec.nbytes * (1 + passes), size, memory, flops, seconds)
    return plan


def run_merge(plan: Plan, context: Context) -> Result:
    """Write the merged folder, then compare it with the base and its adapters as they were trained."""
    config, origin = plan.config, plan.details["origin"]
    assert isinstance(config, MergeAdapter) and isinstance(origin, AdapterBase)
    import torch

    torch.set_num_threads(resolve_threads(config.threads))
    folder = ModelFolder.open(plan.inputs["model"])
    adapters = open_adapters(config.adapter)
    if not config.force:
        require_base(origin, folder, plan.details["base"])
    weights = config.weights or (1.0,) * len(adapters)
    targets: dict[str, dict[str, LazyTensor]] = {"original": dict(folder.tensors)}
    if origin.rounding != "none":
        targets["dequantised"] = rounded_tensors(folder.tensors, folder.config, origin)
    merged = {name: merged_tensors(base, adapters, weights, folder.config) for name, base in targets.items()}
    stored = {name: _as_stored(tensors, folder.tensors, config.dtype) for name, tensors in merged.items()}
    chosen = stored[config.into]
    with (
        context.reporter.bar("merge", len(chosen), "tensors") as bar,
        TensorWriter(context.out, {name: tensor.info for name, tensor in chosen.items()}) as writer,
    ):
        for name, tensor in chosen.items():
            writer.add(name, tensor.load())
            bar.advance(1)
    new = _written_config(folder.config, config)
    write_model_files(context.out, new, generation=folder.generation_config)
    with_tokenizer = [path for path in (*(each.path for each in adapters), folder.path) if has_tokenizer(path)]
    if with_tokenizer:
        write_tokenizer(with_tokenizer[0], context.out)
    data: dict[str, Any] = {"into": config.into, "rounding": origin.rounding, "tensors": len(chosen)}
    if config.measure:
        trained = merged.get("dequantised", merged["original"])
        data["drift"] = measure(config, folder.config, trained, stored, with_tokenizer)
    write_card(context.out, new, _card(plan, config, origin), context.record(data))
    return Result(data, _view(data, config))


def _tokenizer(plan: Plan, specs: Specs) -> Spec | None:
    """That of the model that is written, for the steps behind: the first adapter's, or the base's."""
    for path in (path for name, path in plan.inputs.items() if name != "data"):
        if specs.is_predicted(path) or has_tokenizer(path):
            return specs.of(path, TokenizerSpec)
    return None


def base_of(model: str | None, origins: Sequence[AdapterBase], specs: Specs) -> str:
    """The base to merge into. Raises UserError if none is named, or the one that an adapter names is not there."""
    if model is not None:
        return model
    names = {origin.name for origin in origins}
    if len(names) > 1 or not all(names):
        raise UserError(
            "the adapters name " + (", ".join(sorted(filter(None, names))) or "no base"), hint="Name it with --model."
        )
    (name,) = names
    try:
        locate_planned(name, specs)
    except UserError as error:
        raise UserError(f"the adapter's base: {error.message}", hint="Name its folder with --model.") from None
    return name


def training_base(config: MergeAdapter, origins: Sequence[AdapterBase]) -> AdapterBase:
    """What the adapters were trained on; raises UserError if they were rounded in different ways."""
    found = list(origins)
    if config.rounding != "auto":
        found = [replace(each, rounding=config.rounding) for each in found]
    if len({(each.rounding, each.double_quant or each.rounding != "nf4") for each in found}) > 1:
        kinds = ", ".join(each.rounding for each in found)
        raise UserError(f"the adapters were trained on different roundings of the base: {kinds}")
    hashes = {each.sha256 for each in found} - {""}
    if len(hashes) > 1 and not config.force:
        raise UserError("the adapters were trained on different bases", hint="--force merges them all the same.")
    return replace(found[0], sha256=next(iter(hashes), ""))


def require_base(origin: AdapterBase, folder: ModelFolder, base: str) -> None:
    """Raise UserError if the base's weights are known to be others than those that the adapter was trained on."""
    if origin.sha256 and weights_hash(folder.path) != origin.sha256:
        raise UserError(
            f"{base} is not the base that the adapter was trained on ({origin.name}): its weights are others",
            hint="Name the right one with --model; --force merges into this one.",
        )


def rounded_tensors(
    tensors: Mapping[str, LazyTensor], config: ModelConfig, origin: AdapterBase
) -> dict[str, LazyTensor]:
    """The base as training saw it: the matrices that a quantised base rounds, rounded and read back."""
    from bottega.model.quantised import KEEP

    found = dict(tensors)
    for place in places(config):
        linear = place.part in ("attention", "feed_forward") and len(place.shape) == 2
        if linear and all(held.split(".")[-2] not in KEEP for held, _ in place.holds):
            tensor = tensors[place.name]
            info = TensorInfo(tensor.shape, "float32")
            found[place.name] = LazyTensor(info, lambda p=place, t=tensor: _rounded(p, t, origin))
    return found


def merged_tensors(
    base: Mapping[str, LazyTensor], adapters: Sequence[Adapter], weights: Sequence[float], config: ModelConfig
) -> dict[str, LazyTensor]:
    """base + Σ weight · (base with the adapter - base), lazily; what is changed is float32."""
    found = dict(base)
    applied = [adapter.applied(base, config) for adapter in adapters]
    for name, tensor in base.items():
        changed = [(w, each[name]) for w, each in zip(weights, applied, strict=True) if each[name] is not tensor]
        if len(changed) == 1 and changed[0][0] == 1.0:
            found[name] = changed[0][1]
        elif changed:
            info = TensorInfo(tensor.shape, "float32")
            found[name] = LazyTensor(info, lambda t=tensor, parts=changed: _summed(t, parts))
    return found


def measure(
    config: MergeAdapter,
    model: ModelConfig,
    trained: Mapping[str, LazyTensor],
    stored: Mapping[str, Mapping[str, LazyTensor]],
    tokenizers: Sequence[Path],
) -> dict[str, dict[str, Any]]:
    """The change of the predictions for each target, against the base and its adapters as trained (in float32)."""
    import torch

    from bottega.model.drift import drift
    from bottega.model.streamed import head_weight, streamed_hidden

    ids = _measured_ids(config, model, tokenizers)

    def capped(logits: torch.Tensor) -> torch.Tensor:
        cap = model.switches.logit_cap
        return logits if cap is None else torch.tanh(logits / cap) * cap

    wanted = streamed_hidden(model, trained, ids).flatten(0, 1)
    found: dict[str, dict[str, Any]] = {}
    for target, tensors in stored.items():
        states = streamed_hidden(model, tensors, ids).flatten(0, 1)
        heads = [head_weight(model, each).load().float() for each in (trained, tensors)]
        found[target] = drift(wanted, states, heads[0], heads[1], capped).as_data()
    return found


def _measured_ids(config: MergeAdapter, model: ModelConfig, tokenizers: Sequence[Path]) -> torch.Tensor:
    """(rows, tokens) of the text; of a model without a tokenizer any tokens have to do."""
    import torch

    from bottega.model.precision import SAMPLE

    length = min(model.context_length, 512, config.measure)
    if not tokenizers:
        return torch.randint(model.vocab_size, (1, length), generator=torch.Generator().manual_seed(0))
    text = SAMPLE if config.data is None else _beginning(config.data, MOST_CHARACTERS * config.measure)
    ids = [id_ for id_ in Tokenizer.load(tokenizers[0]).encode(text)[: config.measure] if id_ < model.vocab_size]
    if not ids:
        raise UserError(f"{config.data} has no text to measure on")
    length = min(length, len(ids))
    return torch.tensor(ids[: len(ids) // length * length]).view(-1, length)


def _beginning(path: Path, characters: int) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(characters)


def _rounded(place: Place, tensor: LazyTensor, origin: AdapterBase) -> torch.Tensor:
    from bottega.model.quantised import rounded

    assert origin.rounding in ("nf4", "int8")
    kind: Any = origin.rounding
    parts = place.unpack(tensor.load().float())
    return place.pack({name: rounded(part.contiguous(), kind, origin.double_quant) for name, part in parts.items()})


def _summed(base: LazyTensor, changed: Sequence[tuple[float, LazyTensor]]) -> torch.Tensor:
    start = base.load().float()
    total = start.clone()
    for weight, tensor in changed:
        total.add_(tensor.load().float().sub_(start), alpha=weight)
    return total


def _as_stored(
    tensors: Mapping[str, LazyTensor], base: Mapping[str, LazyTensor], dtype: DType
) -> dict[str, LazyTensor]:
    """The same in the precision in which they will be written."""
    infos = _stored_infos({name: tensor.info for name, tensor in base.items()}, dtype)
    return {name: LazyTensor(infos[name], lambda n=name: _cast(n, tensors[n], infos[n])) for name in tensors}


def _cast(name: str, tensor: LazyTensor, info: TensorInfo) -> torch.Tensor:
    import torch

    values = tensor.load()
    stored = values.to(getattr(torch, info.dtype))
    if info.dtype == "float16" and not torch.isfinite(stored).all() and torch.isfinite(values).all():
        raise UserError(f"{name} has values too large for float16", hint="Store it with --dtype bfloat16.")
    return stored


def _stored_infos(infos: Mapping[str, TensorInfo], dtype: DType) -> dict[str, TensorInfo]:
    return {name: info if dtype == "auto" else TensorInfo(info.shape, dtype) for name, info in infos.items()}


def _written_config(model: ModelConfig, config: MergeAdapter) -> ModelConfig:
    return model if config.dtype == "auto" else replace(model, dtype=config.dtype)


def _memory(model: ModelConfig, tokens: int) -> int:
    """Bytes at once: one tensor in a few forms, or, while measuring, one block and the embedding and head."""
    shapes = [place.shape for place in places(model)]
    largest = max(shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in shapes)
    head = model.vocab_size * model.hidden_size
    block = (model.parameter_count() - head) // model.num_hidden_layers
    activations = 16 * tokens * max(model.hidden_size, model.intermediate_size)
    return PROCESS_BYTES + 4 * max(4 * largest, (block + 3 * head + activations) if tokens else 0)


def _card(plan: Plan, config: MergeAdapter, origin: AdapterBase) -> CardText:
    names = [Path(each).name for each in config.adapter]
    where = "its weights as they are" if config.into == "original" else f"its weights rounded to {origin.rounding}"
    base = str(plan.details["base"])
    return CardText(
        title=config.out.name,
        summary=f"{Path(base).name} with {', '.join(names)}, merged into {where}.",
        licence=getattr(plan.produces, "licence", None),
        base_model=base if not Path(base).exists() else Path(base).resolve().name,
        tags=("merge",),
    )


def _view(data: dict[str, Any], config: MergeAdapter) -> list[Block]:
    rows = [
        (
            f"{target}{' (written)' if target == config.into else ''}", f"{found['kl_mean']:.3g}",
            f"{found['kl_p99']:.3g}", f"{found['top1_agreement']:.1%}", f"{found['largest_logit_change']:.3g}",
        )
        for target, found in data.get("drift", {}).items()
    ]  # fmt: skip
    if not rows:
        return [Text("The change of the predictions was not measured.")]
    columns = ("merged into", "KL mean (nats)", "KL 99 %", "same top token", "largest change of a logit")
    note = "Against the base and its adapters as they were trained, in float32."
    return [Table("What merging changes", columns, rows, note)]
