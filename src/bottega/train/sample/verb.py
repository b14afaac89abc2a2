"""`bottega sample`: prompts in, scored answers and training data made of them out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega.checkpoint.adapter_base import adapter_checks
from bottega.checkpoint.hub import locate_planned
from bottega.checkpoint.spec import ModelSpec
from bottega.core.atomic import write_bytes, write_json
from bottega.core.errors import UserError
from bottega.core.machine import inference_dtype, measure, memory_check, resolve_device
from bottega.core.plan import Check, Cost, Plan, Specs
from bottega.core.report import Section, write_report
from bottega.core.verb import Context, Result
from bottega.core.view import human_count
from bottega.data.formats.kinds import Prompt
from bottega.generate.checks import generation_memory
from bottega.train.rewards.rewards import check_rewards
from bottega.train.sample.config import SampleAnswers, parse_keep
from bottega.train.sample.figures import FIGURES_FILE, figures, sample_blocks
from bottega.train.sample.prompts import encode, messages_of, prompts_of
from bottega.train.sample.samples import Sample, SampleFile, as_lines, chosen, pair_row, pairs, sft_row

if TYPE_CHECKING:
    from bottega.train.rewards.rewards import Rewards
    from bottega.train.rollout import Rollout, Rollouts

SAMPLES_FILE, DATA_FILE, REPORT_FILE = "samples.jsonl", "data.jsonl", "report.html"
BATCHES_AT_ONCE = 4  # between two writes: few tails that leave the batch half empty
BYTES_PER_TOKEN, TYPICAL_PROMPT = 3.5, 256
LOAD_SECONDS, EFFICIENCY = 2.0, 0.25


def plan_sample(config: SampleAnswers, specs: Specs) -> Plan:
    """Check model, prompts and rewards; count the work."""
    spec = specs.of(Path(config.model), ModelSpec)
    plan = Plan("sample", config, config.out)
    plan.inputs = {"model": locate_planned(config.model, specs), "data": config.data}
    plan.inputs |= {f"adapter.{number}": locate_planned(each, specs) for number, each in enumerate(config.adapter)}
    files = [path for each in config.rewards for path in each.files().values()]
    plan.inputs |= {f"scored_by.{number}": path for number, path in enumerate(files) if path.exists()}
    plan.checks = [
        Check("tokenizer", spec.has_tokenizer, "is there" if spec.has_tokenizer else "the folder has none"),
        *_template_check(config, spec),
        *adapter_checks(config.model, config.adapter, specs),
    ]
    plan.details["dtype"] = config.dtype
    if config.dtype == "auto":
        plan.details["dtype"] = inference_dtype(spec.config.dtype, resolve_device(config.device))
    if specs.is_predicted(config.data):
        plan.work = ["answer the prompts of an earlier step; how many is known when they are there"]
        return plan
    prompts, skipped = prompts_of(config.data, config.limit)
    left_out = ", ".join(f"{count} {reason}" for reason, count in skipped.counts.most_common())
    plan.checks.append(Check("prompts", True, f"{len(prompts)}" + (f"; left out: {left_out}" if left_out else "")))
    plan.checks += check_rewards(
        config.rewards,
        [each.row for each in prompts],
        allow_code=config.allow_code,
        tokenizer_hash=spec.tokenizer_hash,
    )
    _add_cost(plan, config, spec, prompts)
    return plan


def run_sample(plan: Plan, context: Context) -> Result:
    """Answer, score, write; goes on behind the prompts that an interrupted run has done."""
    config = plan.config
    assert isinstance(config, SampleAnswers)
    prompts, _ = prompts_of(config.data, config.limit)
    file = SampleFile(context.out / SAMPLES_FILE, config.n)
    try:
        todo = [place for place in range(len(prompts)) if place not in file.samples]
        if len(todo) < len(prompts):
            context.reporter.say(f"{len(prompts) - len(todo)} of {len(prompts)} prompts were answered before")
        if todo:
            _answer(config, prompts, todo, file, context)
    finally:
        file.close()
    groups = [file.samples[place] for place in range(len(prompts))]
    rows = _kept(config, prompts, groups)
    write_bytes(context.out / DATA_FILE, as_lines(rows))
    data = figures(groups, config.pass_score) | {"keep": config.keep, "kept": len(rows)}
    write_json(context.out / FIGURES_FILE, data)
    blocks = sample_blocks(data)
    title = f"{config.n} answers of {Path(config.model).name} to each of {len(prompts)} prompts"
    write_report(context.out / REPORT_FILE, "Samples", [Section("Scores", blocks)], subtitle=title)
    return Result(data, blocks)


def _answer(
    config: SampleAnswers, prompts: Sequence[Prompt], todo: Sequence[int], file: SampleFile, context: Context
) -> None:
    """Answers to the prompts at `todo`, scored, into the file."""
    from bottega.generate.settings import Sampling
    from bottega.train.rewards.rewards import Rewards

    rewards = Rewards(config.rewards, allow_code=config.allow_code, device=resolve_device(config.device))
    rollouts = _rollouts(config)
    sampling = Sampling(
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
    )
    try:
        ids = encode(rollouts.generator.tokenizer, [prompts[place] for place in todo], plain=config.plain)
        _require_room(ids, todo, rollouts.context_length)
        at_once = -(-BATCHES_AT_ONCE * config.max_batch // config.n)
        done = config.n * (len(prompts) - len(todo))
        with context.reporter.bar("sample", config.n * len(prompts), "answers", done=done) as bar:
            for start in range(0, len(todo), at_once):
                places = todo[start : start + at_once]
                asked = ids[start : start + at_once]
                found = rollouts.sample(asked, config.n, sampling, config.seed, numbers=places, bar=bar)
                samples = _scored(found, places, prompts, rewards)
                for group in range(0, len(samples), config.n):
                    file.add(samples[group : group + config.n])
                bar.advance(0, note=f"reward {sum(each.score for each in samples) / len(samples):.3f}")
    finally:
        rollouts.close()


def _require_room(ids: Sequence[Sequence[int]], places: Sequence[int], most: int) -> None:
    """Before the first answer, not in the middle of the night."""
    for place, prompt in zip(places, ids, strict=True):
        if len(prompt) >= most:
            raise UserError(
                f"prompt {place + 1} has {len(prompt)} tokens, and there is room for {most} with its answer",
                hint="Leave it out, or raise --cache-tokens if that is what is too small.",
            )


def _rollouts(config: SampleAnswers) -> Rollouts:
    from bottega.generate.config import OnEngine
    from bottega.generate.generator import Generator
    from bottega.train.rollout import Rollouts

    generator = Generator.load(
        config.model,
        adapters=config.adapter,
        device=config.device,
        dtype=config.dtype,
        threads=config.threads,
        settings=OnEngine(model=config.model, cache_tokens=config.cache_tokens),
        max_batch=config.max_batch,
    )
    return Rollouts.of(generator)


def _scored(
    rollouts: Sequence[Rollout], places: Sequence[int], prompts: Sequence[Prompt], rewards: Rewards
) -> list[Sample]:
    from bottega.train.rewards.answer import Answer

    numbers = [places[each.prompt_index] for each in rollouts]
    scores = rewards(
        [
            Answer(each.text, prompts[number].row, each.finished, each.prompt_ids, each.completion_ids)
            for number, each in zip(numbers, rollouts, strict=True)
        ]
    )
    return [
        Sample(
            prompt=number,
            sample=each.sample_index,
            text=each.text,
            finished=each.finished,
            tokens=len(each.completion_ids),
            log_prob=sum(each.log_probs),
            score=scores.total[at],
            rewards={name: values[at] for name, values in scores.components.items()},
        )
        for at, (number, each) in enumerate(zip(numbers, rollouts, strict=True))
    ]


def _kept(
    config: SampleAnswers, prompts: Sequence[Prompt], groups: Sequence[Sequence[Sample]]
) -> list[dict[str, Any]]:
    """The rows of data.jsonl."""
    kind, least = parse_keep(config.keep)
    if kind == "pairs":
        found = pairs(groups, config.gap)
        return [pair_row(prompts[best.prompt], best, worst, plain=config.plain) for best, worst in found]
    return [sft_row(prompts[each.prompt], each, plain=config.plain) for each in chosen(groups, kind, least)]


def _template_check(config: SampleAnswers, spec: ModelSpec) -> list[Check]:
    if config.plain:
        return []
    missing = "the model has none; to continue the prompts as plain text, give --plain"
    return [Check("chat template", spec.template is not None, "is there" if spec.template is not None else missing)]


def _add_cost(plan: Plan, config: SampleAnswers, spec: ModelSpec, prompts: Sequence[Prompt]) -> None:
    answers = len(prompts) * config.n
    most = answers * config.max_new_tokens
    length = sum(len(str(message.get("content"))) for each in prompts for message in messages_of(each))
    asked = round(length / BYTES_PER_TOKEN)
    scored = ", ".join(each.type for each in config.rewards)
    plan.work = [
        f"{config.n} answers to each of {len(prompts)} prompts: at most {human_count(most)} tokens",
        f"score them by {scored}; keep {config.keep}",
    ]
    memory = generation_memory(spec, TYPICAL_PROMPT + config.max_new_tokens, min(config.max_batch, answers))
    plan.checks.append(memory_check(memory))
    flops = 2.0 * spec.config.parameter_count() * (asked + most)
    rates = measure()
    rate = rates.bfloat16 if plan.details["dtype"] == "bfloat16" else rates.float32
    plan.cost = Cost(
        bytes_read=spec.nbytes,
        bytes_written=round(2 * BYTES_PER_TOKEN * most) + 300 * answers,
        peak_memory=memory,
        flops=flops,
        seconds=LOAD_SECONDS + flops / (EFFICIENCY * rate),
    )
