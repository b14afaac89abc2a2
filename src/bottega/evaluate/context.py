"""`bottega context`: a longer context by scaled rotary positions, measured by position before and after.

No weight changes: the new folder has another `config.json` (and what the formulas are, `bottega.model.rope`
says). Without further training, an extension costs something at every position and gains behind the old
context; the measurement shows both. "as it was" is the model with its own angles, which simply go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from bottega.checkpoint.adapter_base import adapter_checks
from bottega.checkpoint.card import CardText, write_card
from bottega.checkpoint.config import ModelConfig
from bottega.checkpoint.folder import ModelFolder
from bottega.checkpoint.hub import locate_planned
from bottega.checkpoint.spec import ModelSpec
from bottega.checkpoint.writer import TensorWriter, write_model_files
from bottega.core.errors import UserError
from bottega.core.machine import measure, resolve_device, resolve_threads
from bottega.core.plan import PROCESS_BYTES, Check, Cost, Plan, Specs
from bottega.core.record import read_record
from bottega.core.verb import Context, Result
from bottega.core.view import Block, Text, human_count
from bottega.evaluate.config import ExtendContext
from bottega.evaluate.texts import read_texts, text_file
from bottega.tokenizer.files import write_tokenizer

AS_IT_WAS = "as it was"
PIECES = 2
EFFICIENCY = 0.4  # of the rate of matrix products, that a long row reaches


def plan_context(config: ExtendContext, specs: Specs) -> Plan:
    """Check that the positions can be scaled; say what the new config will be; estimate the measurement."""
    spec = specs.of(Path(config.model), ModelSpec)
    plan = Plan("context", config, config.out, {"model": locate_planned(config.model, specs)})
    plan.inputs |= {f"adapter.{number}": locate_planned(each, specs) for number, each in enumerate(config.adapter)}
    if config.text is not None:
        plan.inputs["text"] = config.text
        plan.checks.append(Check("text", True, str(text_file(config.text))))
    old = spec.config
    rotary, longer = old.switches.positions == "rotary", config.to > old.context_length
    plan.checks += [
        Check("positions", rotary, "rotary" if rotary else f"{old.switches.positions}: they cannot be scaled"),
        Check("scaling", old.rope_scaling is None, f"is {old.rope_scaling or 'plain'}; only plain ones are extended"),
        Check("context", longer, f"from {old.context_length:,} to {config.to:,} tokens{', no gain' * (not longer)}"),
        Check("tokenizer", spec.has_tokenizer, "to measure with" if spec.has_tokenizer else "the folder has none"),
        *adapter_checks(config.model, config.adapter, specs),
    ]
    if not all(check.passed for check in plan.checks):
        return plan
    new = extended(old, config.to, config.method)
    tokens = config.tokens or PIECES * config.to
    plan.details["config"] = new
    plan.produces = replace(spec, config=new)
    plan.work = [
        f"write {config.out} with {config.method} positions, factor {config.to / old.context_length:.3g}",
        f"perplexity by position on {human_count(tokens)} tokens, in pieces of {config.to:,}, before and after",
    ]
    plan.cost = _cost(old, spec, tokens, config.to, resolve_threads(config.threads))
    return plan


def extended(config: ModelConfig, length: int, method: str) -> ModelConfig:
    """The config with room for `length` tokens; raises UserError for a method that is none."""
    from bottega.model.rope import ntk_theta

    old = config.context_length
    factor = length / old
    match method:
        case "linear":
            scaling = {"rope_type": "linear", "factor": factor}
            return replace(config, max_position_embeddings=length, rope_scaling=scaling)
        case "yarn":
            scaling = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": old}
            return replace(config, max_position_embeddings=length, rope_scaling=scaling)
        case "dynamic":  # the formula wants the old length where the others have the new one
            return replace(config, rope_scaling={"rope_type": "dynamic", "factor": factor})
        case "ntk":
            turned = int(config.head_dim * config.partial_rotary_factor)
            if turned <= 2:
                raise UserError("method ntk needs more than one turned pair of channels", hint="Take linear.")
            theta = ntk_theta(config.rope_theta, factor, turned)
            return replace(config, max_position_embeddings=length, rope_theta=theta)
    raise UserError(f"unknown method {method!r}", hint="Known: yarn, linear, dynamic, ntk.")


def _cost(config: ModelConfig, spec: ModelSpec, tokens: int, length: int, threads: int) -> Cost:
    attention = 4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * length / 2
    flops = 2 * tokens * (2 * config.active_parameter_count() + attention)
    states = 12 * length * (config.hidden_size + config.intermediate_size) * 4
    return Cost(
        bytes_read=2 * spec.nbytes,
        bytes_written=spec.nbytes,
        peak_memory=PROCESS_BYTES + 4 * config.parameter_count() + states + 4 * (1 << 22) * 4,
        flops=flops,
        seconds=4.0 + flops / (EFFICIENCY * measure(threads=threads).float32),
    )


def run_context(plan: Plan, context: Context) -> Result:
    """Write the folder, measure, record."""
    config = plan.config
    assert isinstance(config, ExtendContext)
    folder = ModelFolder.open(plan.inputs["model"], config.adapter)
    new: ModelConfig = plan.details["config"]
    with TensorWriter(context.out, {name: tensor.info for name, tensor in folder.tensors.items()}) as writer:
        for name, tensor in folder.tensors.items():
            writer.add(name, tensor.load())
    write_tokenizer(folder.path, context.out)
    write_model_files(context.out, new, generation=folder.generation_config)
    rows = _measure(config, folder, new, context)
    data: dict[str, Any] = {
        "method": config.method,
        "context_length": [folder.config.context_length, new.context_length],
        "rope": {"rope_theta": new.rope_theta, "rope_scaling": new.rope_scaling},
        "by_position": rows,
    }
    summary = f"The context of {folder.path.name} from {folder.config.context_length:,} to {config.to:,} tokens."
    limits = ["No weight was trained: how well it reads far behind its old context, the record says."]
    write_card(context.out, new, CardText(config.out.name, summary, limits=limits), context.record(data))
    return Result(data, _blocks(data))


def _measure(config: ExtendContext, folder: ModelFolder, new: ModelConfig, context: Context) -> list[dict[str, Any]]:
    import torch

    from bottega.evaluate.positions import as_rows, perplexity_by_position, unscaled
    from bottega.model.inference import prepare_for_inference
    from bottega.model.load import load_decoder

    torch.set_num_threads(resolve_threads(config.threads))
    pieces = _pieces(config, folder.path, new.context_length)
    measured = {}
    with context.reporter.bar("measuring", 2 * len(pieces) * len(pieces[0]), "tok") as bar:
        for name, each in ((AS_IT_WAS, unscaled(folder.config, config.to)), (config.method, new)):
            decoder = load_decoder(replace(folder, config=each), device=resolve_device(config.device))
            measured[name] = perplexity_by_position(prepare_for_inference(decoder), pieces, bar.advance)
    return as_rows(measured)


def _pieces(config: ExtendContext, model: Path, length: int) -> list[list[int]]:
    """The text, one document behind the other, in pieces of `length` tokens."""
    from bottega.tokenizer.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(model)
    texts = read_texts(text_file(config.text)) if config.text else iter(_topics())
    wanted = config.tokens or PIECES * length
    stream = list(islice((id_ for text in texts for id_ in tokenizer.encode(text)), wanted))
    prefix = tokenizer.document_prefix()
    step = length - len(prefix)
    pieces = [[*prefix, *stream[start : start + step]] for start in range(0, len(stream) - step + 1, step)]
    if pieces:
        return pieces
    if len(stream) < 2:
        raise UserError("the text is too short to measure anything", hint="Give a longer one with --text.")
    return [[*prefix, *stream]]  # shorter than the new context: measured as far as it goes


def _topics() -> list[str]:
    from pydoc_data.topics import topics

    return ["\n\n".join(topics.values())]


def _blocks(data: dict[str, Any]) -> list[Block]:
    from bottega.evaluate.positions import position_blocks

    old, new = data["context_length"]
    reached = data["by_position"][-1]["last"]
    blocks: list[Block] = [*position_blocks(data["by_position"], [AS_IT_WAS, data["method"]], old)]
    if reached + 2 < new:
        blocks.append(Text(f"The text has only {reached + 1:,} tokens: behind them nothing was measured."))
    return blocks


def context_report(folder: Path) -> Sequence[Block]:
    """What a recipe's report shows of an extension."""
    record = read_record(folder)
    return _blocks(record.metrics) if record else []
