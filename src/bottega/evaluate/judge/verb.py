"""`bottega judge`: answers in, verdicts and figures out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bottega.checkpoint.hub import locate_planned
from bottega.checkpoint.spec import ModelSpec
from bottega.core.atomic import write_bytes, write_json
from bottega.core.errors import BottegaError
from bottega.core.machine import inference_dtype, measure, memory_check, resolve_device
from bottega.core.plan import Check, Cost, Plan, Specs
from bottega.core.report import Section, write_report
from bottega.core.verb import Context, Result
from bottega.core.view import human_count
from bottega.evaluate.arena.votes import read_votes
from bottega.evaluate.judge.agreement import people_figures, people_points
from bottega.evaluate.judge.answers import read_answers
from bottega.evaluate.judge.asking import Judge, endpoint_judge, judge_all, judge_of, local_judge
from bottega.evaluate.judge.biases import Comparison, length_correlation, own_figures, style_figures
from bottega.evaluate.judge.calls import Call, Judgement, calls_of, limited, only_one_has
from bottega.evaluate.judge.config import JudgeAnswers, is_url
from bottega.evaluate.judge.pairs import Pair, pair_figures, pairs_of_judgements, position_figures, votes_of
from bottega.evaluate.judge.prompts import own_prompts, read_prompts
from bottega.evaluate.judge.scores import score_comparisons, score_figures
from bottega.evaluate.judge.store import Store
from bottega.evaluate.judge.view import FIGURES_FILE, judge_blocks
from bottega.generate.checks import generation_memory

JUDGEMENTS_FILE, VOTES_FILE, REPORT_FILE = "judgements.jsonl", "votes.jsonl", "report.html"
BYTES_PER_TOKEN = 3.5  # of English, in most vocabularies
TYPICAL_TOKENS = 250  # of a judgement: a few sentences, or a long thought now and then
LOAD_SECONDS, EFFICIENCY = 2.0, 0.25


def plan_judge(config: JudgeAnswers, specs: Specs) -> Plan:
    """Read the answers, make every question to the judge, and count; nothing is asked."""
    plan = Plan("judge", config, config.out)
    plan.inputs = {f"answers.{number}": path for number, path in enumerate(config.answers)}
    plan.inputs |= {f"votes.{number}": path for number, path in enumerate(config.votes)}
    plan.inputs |= {
        name: path for name in ("questions", "reference", "prompts") if (path := getattr(config, name)) is not None
    }
    if any(specs.is_predicted(path) for path in config.answers):
        plan.work = ["judge the answers of an earlier step; how many is known when they are there"]
        return plan
    calls = read_calls(config)
    plan.checks += _answer_checks(config, calls)
    prompt = sum(len(message["content"].encode("utf-8", "replace")) for call in calls for message in call.messages)
    tokens = round(prompt / BYTES_PER_TOKEN)
    plan.work = [
        f"{len(calls)} judgements: about {human_count(tokens)} tokens of prompts, and at most "
        f"{human_count(len(calls) * config.max_tokens)} of judgements",
    ]
    if is_url(config.judge):
        judge = judge_of(config)
        plan.details["environment"] = {"judge": judge.name}
        known = _known(config, judge, calls)
        plan.checks.append(Check("judge", True, f"{judge.name} at {config.judge}"))
        plan.work.append(f"{known} of them were made before, {len(calls) - known} are to be asked for")
        plan.cost = Cost(bytes_written=8 * config.max_tokens * len(calls))
    else:
        _plan_local(plan, config, specs, len(calls), tokens)
    return plan


def read_calls(config: JudgeAnswers) -> list[Call]:
    """Every question to the judge that the settings come to."""
    prompts = read_prompts(config.prompts) if config.prompts is not None else own_prompts()
    return calls_of(_answers(config), config.mode, prompts, config.baseline)


def run_judge(plan: Plan, context: Context) -> Result:
    """Ask, count, write, show."""
    config = plan.config
    assert isinstance(config, JudgeAnswers)
    calls, judge = read_calls(config), judge_of(config)
    ask_all = endpoint_judge(judge.endpoint, config) if judge.endpoint else local_judge(config)
    with Store(judge.store_path(config)) as store:
        known = sum(store.get(judge.key(call)) is not None for call in calls)
        with context.reporter.bar(f"judging by {judge.name}", len(calls), "judgements", done=known) as bar:
            try:
                judgements, asked = judge_all(calls, judge, store, ask_all, bar)
            except BottegaError as error:
                error.hint = f"{error.hint} What was judged is kept: the same command goes on from there.".strip()
                raise
    if not any(each.reply for each in judgements):
        raise BottegaError(f"the judge answered none of {len(calls)} questions: {judgements[0].error}")
    data = figures(config, judge, judgements)
    data["calls"] |= {"asked": asked, "known": len(calls) - asked}
    blocks = judge_blocks(data)
    if plan.out is not None:
        _write(context.out, config, judge, judgements, data)
        title = f"{len(judgements)} judgements by {judge.name} on {len(data['models'])} models"
        write_report(context.out / REPORT_FILE, "Judge", [Section("Judgements", blocks)], subtitle=title)
    return Result(data, blocks)


def figures(config: JudgeAnswers, judge: Judge, judgements: Sequence[Judgement]) -> dict[str, Any]:
    """All that judge.json says, but for what is asked for anew."""
    votes = read_votes(config.votes)
    data: dict[str, Any] = {
        "mode": config.mode,
        "judge": judge.name,
        "endpoint": judge.endpoint.base if judge.endpoint else None,
        "calls": _counts(judgements),
        "failures": dict(Counter(each.error for each in judgements if each.error)),
    }
    if config.mode == "pairwise":
        pairs = pairs_of_judgements(judgements)
        comparisons = [pair.comparison for pair in pairs if pair.winner is not None]
        data |= pair_figures(pairs) | {"position": position_figures(pairs, seed=config.seed)}
    else:
        comparisons = score_comparisons(judgements)
        data |= score_figures(judgements, seed=config.seed)
        data["length_correlation"] = length_correlation(judgements, seed=config.seed).as_data()
    people = people_points(votes, comparisons)
    data["comparisons"] = len(comparisons)
    data["style"] = style_figures(comparisons)
    data["own"] = own_figures(judge.name, comparisons, people)
    data["people"] = people_figures(comparisons, people, seed=config.seed)
    return data


def _answers(config: JudgeAnswers) -> Any:
    return limited(read_answers(config.answers, config.questions, config.reference), config.limit)


def _answer_checks(config: JudgeAnswers, calls: Sequence[Call]) -> list[Check]:
    answers = _answers(config)
    each = ", ".join(f"{model} {len(own)}" for model, own in answers.items())
    checks = [Check("answers", True, each)]
    if config.mode == "pairwise" and (alone := only_one_has(answers, config.baseline)):
        checks.append(Check("pairs", True, f"{alone} answers have no counterpart and are left out"))
    if config.reference is not None:
        used = sum(bool(call.answers[0].references) for call in calls)
        checks.append(Check("reference", used > 0, f"{used} of {len(calls)} judgements have a right answer"))
    if config.votes:
        votes = read_votes(config.votes)
        found = sum(points is not None for points in people_points(votes, _possible(calls)))
        checks.append(Check("votes", found > 0, f"{len(votes)} votes are about {found} of the comparisons"))
    return checks


def _possible(calls: Sequence[Call]) -> list[Comparison]:
    """The comparisons that the calls may come to, whoever wins."""
    nothing = [Judgement(call, None) for call in calls]
    if calls and len(calls[0].models) == 2:
        return [pair.comparison for pair in pairs_of_judgements(nothing)]
    longest: dict[tuple[str, str], Call] = {}
    for call in calls:
        longest[call.models[0], call.id] = call  # turns come in their order
    models = dict.fromkeys(model for model, _ in longest)
    return [
        Comparison.of(one, other, call.answers[0], longest[other, id_].answers[0], 0.5)
        for (one, id_), call in longest.items()
        for other in models
        if one < other and (other, id_) in longest
    ]


def _plan_local(plan: Plan, config: JudgeAnswers, specs: Specs, count: int, tokens: int) -> None:
    """Checks and cost of a model folder as judge."""
    spec = specs.of(Path(config.judge), ModelSpec)
    plan.inputs["judge"] = locate_planned(config.judge, specs)
    plan.details["dtype"] = config.dtype
    if config.dtype == "auto":
        plan.details["dtype"] = inference_dtype(spec.config.dtype, resolve_device(config.device))
    detail = "is there" if spec.template is not None else f"{config.judge} has none"
    memory = generation_memory(spec, round(tokens / max(1, count)) + config.max_tokens, config.concurrency)
    plan.checks += [Check("chat template", spec.template is not None, detail), memory_check(memory)]
    answer = min(config.max_tokens, TYPICAL_TOKENS)
    flops = 2.0 * spec.config.parameter_count() * (tokens + count * answer)
    rates = measure()
    rate = rates.bfloat16 if plan.details["dtype"] == "bfloat16" else rates.float32
    plan.cost = Cost(
        bytes_read=spec.nbytes,
        bytes_written=8 * config.max_tokens * count,
        peak_memory=memory,
        flops=flops,
        seconds=LOAD_SECONDS + flops / (EFFICIENCY * rate),
    )


def _known(config: JudgeAnswers, judge: Judge, calls: Sequence[Call]) -> int:
    store = Store(judge.store_path(config))
    return sum(store.get(judge.key(call)) is not None for call in calls)


def _counts(judgements: Sequence[Judgement]) -> dict[str, int]:
    replies = [each.reply for each in judgements if each.reply]
    return {
        "total": len(judgements),
        "failed": len(judgements) - len(replies),
        "unusable": sum(each.reply is not None and not each.is_usable for each in judgements),
        "cut_off": sum(reply.finish_reason == "length" for reply in replies),
        "prompt_tokens": sum(reply.prompt_tokens for reply in replies),
        "completion_tokens": sum(reply.completion_tokens for reply in replies),
    }


def _write(
    out: Path, config: JudgeAnswers, judge: Judge, judgements: Sequence[Judgement], data: dict[str, Any]
) -> None:
    write_json(out / FIGURES_FILE, data)
    _write_rows(out / JUDGEMENTS_FILE, [each.as_row() for each in judgements])
    if config.mode == "pairwise":
        pairs: list[Pair] = pairs_of_judgements(judgements)
        _write_rows(out / VOTES_FILE, [vote.as_row() for vote in votes_of(pairs, judge.name)])


def _write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    # A lone surrogate has no UTF-8, but JSON's own escape of it is what backslashreplace writes.
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_bytes(path, lines.encode("utf-8", "backslashreplace"))
