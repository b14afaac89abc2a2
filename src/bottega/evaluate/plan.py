"""The plan of `eval`: what fits together, how much there is to score, what it costs. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bottega.checkpoint.adapter_base import adapter_checks
from bottega.checkpoint.config import ModelConfig
from bottega.checkpoint.hub import locate_planned
from bottega.checkpoint.spec import ModelSpec
from bottega.core.machine import cores, inference_dtype, measure, resolve_device
from bottega.core.plan import Check, Cost, Plan, Specs
from bottega.core.view import human_bytes, human_count
from bottega.data.spec import CORPUS_FILE, QUESTIONS_FILE, TRAIN_FILE, CorpusSpec
from bottega.evaluate.config import DEFAULT_CONTEXT, EvaluateModel
from bottega.evaluate.harness.plan import plan_tasks
from bottega.evaluate.spec import PARTS, EvaluationSpec
from bottega.evaluate.texts import text_file

NOT_COMPARABLE = (
    "The models have different tokenizers: kl_mean, kl_p99 and top1_agreement are not defined between them, and "
    "perplexities per token cannot be compared. Bits per byte can."
)
# Rough sizes, where the text itself cannot be counted before it is read.
BYTES_PER_TOKEN = 3.5
TOKENS_PER_QUESTION = 150
# Share of the measured rate of matrix products that scoring reaches: long rows, and single questions.
EFFICIENCY, QUESTION_EFFICIENCY = 0.5, 0.25
STARTUP_SECONDS = 3.0
SECONDS_PER_QUESTION = 0.012  # ten passes over a few tokens each, which cost the same however small the model
XZ_BYTES_PER_SECOND = 1.4e6
TOKENIZED_BYTES_PER_SECOND = 2.8e6


@dataclass(frozen=True)
class Amount:
    """How much text there will be to read: bytes, and documents where that is known."""

    bytes: int
    documents: int | None = None


def plan_evaluate(config: EvaluateModel, specs: Specs) -> Plan:
    """Check models, tokenizers, tasks and files against each other; estimate the cost."""
    plan = Plan("eval", config, config.out)
    plan.inputs = {f"adapter.{number}": locate_planned(each, specs) for number, each in enumerate(config.adapter)}
    if config.text is None and config.questions is None:
        plan.details = {"dtype": _dtype(config, specs.of(Path(config.model[0]), ModelSpec).config)}
        plan.checks = _model_checks(config, specs.of(Path(config.model[0]), ModelSpec), specs)
        plan_tasks(plan, config, specs)
        plan.produces = EvaluationSpec(("tasks",)) if config.out else None
        return plan
    model = specs.of(Path(config.model[0]), ModelSpec)
    plan.inputs["model"] = locate_planned(config.model[0], specs)
    plan.checks = _model_checks(config, model, specs)
    longest = [model.config.context_length]
    configs = [model.config]
    if config.against is not None:
        reference = specs.of(Path(config.against), ModelSpec)
        plan.inputs["against"] = locate_planned(config.against, specs)
        plan.checks.append(_comparison_check(config, model, reference, specs))
        longest.append(reference.config.context_length)
        configs.append(reference.config)
    context = config.context or min(*longest, DEFAULT_CONTEXT)
    stride = config.stride or max(1, context // 2)
    plan.checks.append(Check("context", context <= min(longest), f"{context} of {min(longest)} tokens"))
    plan.checks.append(Check("stride", stride <= context, f"{stride} of a context of {context}"))
    for name, part in (("text", None), ("questions", QUESTIONS_FILE), ("baselines", TRAIN_FILE)):
        path = getattr(config, name)
        if path is not None:
            plan.inputs[name] = path
            if not specs.is_predicted(path):
                file = text_file(path, part) if part else text_file(path)
                size = file.stat().st_size
                # A corpus may have no questions (the run then says so); a file that is named may not be empty.
                allowed = size > 0 or (name == "questions" and path.is_dir())
                plan.checks.append(Check(name, allowed, f"{file}, {human_bytes(size)}"))
    plan.details = {"dtype": _dtype(config, model.config), "context": context, "stride": stride}
    _estimate(plan, config, configs, specs, context, stride)
    if config.tasks or config.suite:
        plan_tasks(plan, config, specs)
    plan.produces = EvaluationSpec(_parts(config)) if config.out else None
    return plan


def _dtype(config: EvaluateModel, model: ModelConfig) -> str:
    """The precision that generating takes too, so that what is measured is what will run."""
    if config.dtype != "auto":
        return config.dtype
    return inference_dtype(model.dtype, resolve_device(config.device))


def _model_checks(config: EvaluateModel, model: ModelSpec, specs: Specs) -> list[Check]:
    checks = []
    if not specs.is_predicted(Path(config.model[0])):
        checks += adapter_checks(config.model[0], config.adapter, specs)
        detail = "is there" if model.has_tokenizer else f"{config.model[0]} has none"
        checks.append(Check("tokenizer", model.has_tokenizer, detail))
        if config.questions is not None and config.prompt == "chat":
            detail = "the model has one" if model.template else "there is none: use --prompt plain"
            checks.append(Check("chat template", model.template is not None, detail))
    return checks


def _comparison_check(config: EvaluateModel, model: ModelSpec, reference: ModelSpec, specs: Specs) -> Check:
    assert config.against is not None
    if specs.is_predicted(Path(config.model[0])) or specs.is_predicted(Path(config.against)):
        return Check("comparison", True, "tokenizers are compared when both models are there")
    if not (model.has_tokenizer and reference.has_tokenizer):
        return Check("comparison", False, "both models need a tokenizer.json")
    if model.tokenizer_hash != reference.tokenizer_hash:
        return Check("comparison", True, NOT_COMPARABLE)
    sizes = model.config.vocab_size, reference.config.vocab_size
    detail = "same tokenizer" if sizes[0] == sizes[1] else f"vocabularies of {sizes[0]} and {sizes[1]} differ"
    return Check("comparison", sizes[0] == sizes[1], detail)


def _amount(path: Path, specs: Specs) -> Amount:
    """How much held-out text `path` holds or will hold."""
    if specs.is_predicted(path) or (path / CORPUS_FILE).is_file():
        corpus = specs.of(path, CorpusSpec)
        share = corpus.heldout_bytes / max(1, corpus.bytes)
        return Amount(corpus.heldout_bytes, max(1, round(corpus.documents * share)))
    file = text_file(path)
    return Amount(file.stat().st_size, 1 if file.suffix != ".jsonl" else None)


def _training_bytes(path: Path, specs: Specs) -> int:
    """How much training text `path` holds or will hold."""
    if specs.is_predicted(path) or (path / CORPUS_FILE).is_file():
        return specs.of(path, CorpusSpec).training_bytes
    return text_file(path, TRAIN_FILE).stat().st_size


def _questions(path: Path, specs: Specs) -> int:
    if specs.is_predicted(path):
        return specs.of(path, CorpusSpec).questions
    with text_file(path, QUESTIONS_FILE).open("rb") as lines:
        return sum(1 for line in lines if line.strip())


def _estimate(
    plan: Plan, config: EvaluateModel, configs: list[ModelConfig], specs: Specs, context: int, stride: int
) -> None:
    """Fill in the plan's work and cost."""
    rates = measure()
    rate = rates.bfloat16 if plan.details["dtype"] == "bfloat16" else rates.float32
    width = 2 if plan.details["dtype"] in ("bfloat16", "float16") else 4
    flops, seconds, tokens = 0.0, STARTUP_SECONDS, 0.0
    if config.text is not None:
        amount = _amount(config.text, specs)
        whole = amount.bytes / BYTES_PER_TOKEN
        tokens = min(whole, config.max_tokens or float("inf"))
        length = min(tokens, whole / (amount.documents or max(1.0, whole / 1000)))
        read = tokens * _passes(length, context, stride)
        work = sum(2 * _multiplied(each) for each in configs) * read
        # Two whole distributions in float64 cost beside the products (measured at a vocabulary of 4096).
        slower = 1.4 if len(configs) > 1 else 1.0
        flops, seconds = flops + work, seconds + slower * work / (EFFICIENCY * rate)
        seconds += amount.bytes / TOKENIZED_BYTES_PER_SECOND  # all of it, to draw from
        names = "the model" if len(configs) == 1 else "both models"
        plan.work.append(f"score about {human_count(tokens)} tokens with {names}: context {context}, stride {stride}")
    if config.baselines is not None:
        held_out = int(tokens * BYTES_PER_TOKEN)
        compressed = 2 * min(config.xz_megabytes * 2**20, _training_bytes(config.baselines, specs)) + 2 * held_out
        seconds += compressed / XZ_BYTES_PER_SECOND / min(2, cores())
        plan.work.append(f"unigram, bigram and xz (primed with up to {config.xz_megabytes} MiB) on the same bytes")
    if config.questions is not None:
        count = min(_questions(config.questions, specs), config.max_questions or 1 << 30)
        work = 2.0 * _multiplied(configs[0]) * TOKENS_PER_QUESTION * count
        flops, seconds = flops + work, seconds + count * SECONDS_PER_QUESTION + work / (QUESTION_EFFICIENCY * rate)
        plan.work.append(f"ask {count} multiple-choice questions, each with and without the question")
    weights = sum(each.parameter_count() for each in configs) * width
    plan.cost = Cost(
        bytes_read=weights,
        bytes_written=0 if config.out is None else 1 << 20,
        peak_memory=2 * weights + (600 << 20) + (0 if config.baselines is None else 24 * config.xz_megabytes << 20),
        flops=flops,
        seconds=seconds,
    )


def _passes(document_tokens: float, context: int, stride: int) -> float:
    """How often a token goes through the model: once within the context, context/stride times beyond."""
    if document_tokens <= context:
        return 1.0
    return (context + (document_tokens - context) * context / stride) / document_tokens


def _multiplied(config: ModelConfig) -> int:
    """Parameters that every token is multiplied with: all but an embedding that is only looked up."""
    parts = config.parameters_by_part()
    return sum(parts.values()) - (0 if config.tie_word_embeddings else parts["embedding"])


def _parts(config: EvaluateModel) -> tuple[str, ...]:
    wanted = (config.text, config.against, config.baselines, config.questions, config.tasks or config.suite or None)
    return tuple(part for part, value in zip(PARTS, wanted, strict=True) if value is not None)
