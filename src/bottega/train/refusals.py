"""Why a training run would come to nothing, as far as headers and the first examples tell. Imports no torch.

Each is a check of the plan; a failed one stops `bottega train` before any weight is read, and says what to change.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from bottega.checkpoint.adapter_base import adapter_checks
from bottega.checkpoint.config import ModelConfig
from bottega.core.errors import UserError
from bottega.core.plan import Check, Specs
from bottega.core.ranks import world_size
from bottega.data.encode import Encoded
from bottega.data.spec import TokensSpec
from bottega.model.adapter_targets import low_rank_targets
from bottega.model.extend import added_tokens
from bottega.tokenizer.spec import TokenizerSpec
from bottega.train.config import POLICY_STAGES, Train
from bottega.train.preview import Preview
from bottega.train.rewards.rewards import check_rewards
from bottega.train.settings import Settings


def data_checks(
    config: Train, settings: Settings, data: TokensSpec, preview: Preview, tokenizer: TokenizerSpec
) -> list[Check]:
    """Whether the first examples leave something to learn in rows of this length."""
    if not preview.examples:
        if not preview.refused:
            return []
        reason, count = preview.refused.most_common(1)[0]
        return [Check("examples", False, f"none of the first rows can be used: {reason} ({count})")]
    row, seen = settings.row_length, len(preview.examples)
    checks: list[Check] = []
    kept = sum(_is_kept(config, example, row) for example in preview.examples)
    longest = max(data.longest, *(len(document.ids) for document in preview.documents))
    if kept < seen:
        what = "prompts are longer" if config.form == "prompts" else "examples would have nothing left to train on"
        detail = f"{row} tokens: {seen - kept} of the first {seen} {what}. Raise row_length to {longest}"
        checks.append(Check("row length", 2 * kept > seen, detail))
    if config.stage == "sft" and not data.exact:
        checks += _stop_check(config, preview, row, tokenizer.stop_ids)
    return checks


def start_checks(model: Path, start: Path, specs: Specs) -> list[Check]:
    """What is said of an adapter to go on with. Raises UserError if it does not fit, as no settings follow then."""
    checks = adapter_checks(model, [start], specs)
    if wrong := [check.detail for check in checks if not check.passed]:
        raise UserError(f"adapter.start: {wrong[0]}")
    return checks


def parallel_checks(config: Train, settings: Settings) -> list[Check]:
    """Whether the strategy goes with optimiser and stage, where there are, or will be, several processes."""
    several = world_size() > 1 or config.launch is not None or config.parallel.strategy == "deepspeed"
    refusal = config.parallel.refusal(settings.optimizer, draws=config.stage in POLICY_STAGES) if several else ""
    checks = [Check("parallel", False, refusal)] if refusal else []
    if config.parallel.strategy == "deepspeed" and config.launch is None:
        found = importlib.util.find_spec("deepspeed") is not None
        detail = "DeepSpeed's engine" if found else "the package deepspeed is not installed (docs/scale.md)"
        checks.append(Check("deepspeed", found, detail))
    return checks


def model_checks(config: Train, model: ModelConfig, quantised: str, device: str, folder: Path | None) -> list[Check]:
    """Whether model, adapter and machine go together. Raises UserError for an adapter's unknown targets.

    `folder` is the model's, None if it is yet to be made.
    """
    checks: list[Check] = []
    adapter = config.adapter
    if quantised and adapter is None:
        detail = f"the model is stored quantised ({quantised}); train an adapter on it: adapter: {{type: qlora}}"
        checks.append(Check("weights", False, detail))
    if config.checkpointing == "offload" and device == "cpu" and config.launch is None:
        detail = "offload moves activations out of a GPU, and this run is on the CPU: take checkpointing: full"
        checks.append(Check("checkpointing", False, detail))
    if adapter is None:
        return checks
    targets = low_rank_targets(model, adapter)
    checks.append(Check("adapter", True, f"{len(targets)} matrices change"))
    if adapter.new_tokens == "auto" and folder is not None:
        added = added_tokens(folder)
        none = "auto are those that `bottega tokenizer extend` added, and there are none: give their ids"
        checks.append(Check("new tokens", bool(added), f"{len(added)} rows" if added else none))
    if adapter.init == "pissa":
        most = min(min(target.inputs, target.outputs) for target in targets)
        rank = max(target.rank for target in targets)
        wrong = any(target.rank > min(target.inputs, target.outputs) for target in targets)
        detail = f"a matrix has {most} singular directions, r is {rank}"
        checks.append(Check("pissa", not wrong, detail + (f": give r: {most} at most" if wrong else "")))
    return checks


def policy_checks(
    config: Train, settings: Settings, data: TokensSpec, preview: Preview, model: ModelConfig, tokenizer_hash: str,
    specs: Specs,
) -> list[Check]:  # fmt: skip
    """Whether answers have room, and can be rewarded; what an earlier step will make is taken to be there."""
    if config.stage not in POLICY_STAGES:
        return []
    here = [each for each in config.rewards if not any(map(specs.is_predicted, each.files().values()))]
    checks = check_rewards(here, preview.rows, allow_code=config.allow_code, tokenizer_hash=tokenizer_hash)
    longest = min(max([data.longest, *(len(each.ids) for each in preview.documents)]), settings.row_length)
    if longest >= model.context_length:
        detail = f"prompts of {longest} tokens fill the model's context: give row_length: {model.context_length // 2}"
        checks.append(Check("answers", False, detail))
    elif longest + config.policy.max_new_tokens > model.context_length:
        room = model.context_length - longest
        detail = f"up to {config.policy.max_new_tokens} tokens, but behind the longest prompt only {room} have room"
        checks.append(Check("answers", True, detail))
    return checks


def _is_kept(config: Train, example: list[Encoded], row: int) -> bool:
    """Whether something is trained in each document of an example, cut at the row's length."""
    if config.form == "prompts":
        return all(len(document.ids) <= row for document in example)
    # The first token has nothing before it, and is never trained.
    if not all(any(document.mask[1:row]) for document in example):
        return False
    return len(example) < 2 or example[0].ids[:row] != example[1].ids[:row]


def _stop_check(config: Train, preview: Preview, row: int, stops: frozenset[int]) -> list[Check]:
    """A model that is never shown where an answer ends does not end its own."""

    documents = preview.documents
    # Where each has its first stop token that is trained.
    places = [
        next((at for at, (id_, on) in enumerate(zip(*each, strict=True)) if on and at and id_ in stops), None)
        for each in documents
    ]
    found = [place for place in places if place is not None]
    if any(place < row for place in found):
        return []
    count = len(documents)
    if found:
        detail = f"the ends of the first {count} conversations are cut off at {row} tokens: give a larger row_length"
        return [Check("end of answers", not preview.whole, detail)]
    detail = f"no token that ends an answer is trained in the first {count} conversations: "
    if config.train_on_eos == "none":
        return [Check("end of answers", False, detail + "give train_on_eos: turn")]
    return [
        Check("end of answers", False, detail + "the chat template writes none, or it is no stop token of the model")
    ]
