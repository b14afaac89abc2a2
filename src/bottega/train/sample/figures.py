"""What a run of `sample` found, as numbers and as blocks for people."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from bottega.core.view import Bar, Bars, Block, Chart, Series, Table, Text
from bottega.evaluate.tasks.code_tasks import unbiased_pass_at_k
from bottega.train.sample.samples import Sample

FIGURES_FILE = "sample.json"
BINS = 10
FEW_VALUES = 12  # up to so many different scores are shown one by one


def figures(groups: Sequence[Sequence[Sample]], pass_score: float | None) -> dict[str, Any]:
    """Of all prompts' answers. `pass` has pass@k by k (Chen et al. 2021, eq. 1), if a score is known that passes."""
    samples = [each for group in groups for each in group]
    scores = [each.score for each in samples]
    names = list(samples[0].rewards)
    found: dict[str, Any] = {
        "prompts": len(groups),
        "samples": len(samples),
        "finished": fmean(each.finished for each in samples),
        "tokens": fmean(each.tokens for each in samples),
        "reward": {"mean": fmean(scores), "std": pstdev(scores), "best_of_n": fmean(_best(group) for group in groups)},
        "components": {name: _moments([each.rewards[name] for each in samples]) for name in names},
        "zero_variance": fmean(len({each.score for each in group}) == 1 for group in groups),
        "distinct": fmean(len({each.text for each in group}) / len(group) for group in groups),
        "scores": _histogram(scores),
        "pass_score": pass_score,
        "pass": {},
    }
    if pass_score is not None:
        passed = [sum(each.score >= pass_score for each in group) for group in groups]
        n = len(groups[0])
        found["pass"] = {str(k): fmean(unbiased_pass_at_k(n, count, k) for count in passed) for k in _powers(n)}
    return found


def sample_blocks(data: Mapping[str, Any]) -> list[Block]:
    """The table and the charts."""
    reward = data["reward"]
    rows: list[tuple[str, Any]] = [
        ("prompts", data["prompts"]),
        ("answers", data["samples"]),
        ("mean reward", f"{reward['mean']:.3f} ± {reward['std']:.3f}"),
        ("mean reward of each prompt's best", f"{reward['best_of_n']:.3f}"),
    ]
    components = data["components"].items() if len(data["components"]) > 1 else ()
    rows += [(f"reward {name}", f"{each['mean']:.3f} ± {each['std']:.3f}") for name, each in components]
    rows += [(f"pass@{k}", _percent(share)) for k, share in data["pass"].items()]
    rows += [
        ("prompts whose answers all score the same", _percent(data["zero_variance"])),
        ("different answers to a prompt", _percent(data["distinct"])),
        ("answers that end by themselves", _percent(data["finished"])),
        ("mean length, in tokens", f"{data['tokens']:.0f}"),
        (f"kept ({data['keep']})", f"{data['kept']} {'pairs' if data['keep'] == 'pairs' else 'answers'}"),
    ]
    note = "" if data["pass_score"] is None else f"An answer passes with a score of {data['pass_score']:g} or more."
    blocks: list[Block] = [Table("Answers and their scores", ("", ""), rows, note)]
    total = data["samples"]
    bars = [Bar(name, count / total) for name, count in data["scores"].items()]
    blocks.append(Bars("How the scores are spread", "share of the answers", bars, percent=True))
    if len(data["pass"]) > 1:
        points = [(float(k), 100 * share) for k, share in data["pass"].items()]
        title = "Prompts with an answer that passes, by tries"
        blocks.append(Chart(title, "tries (k)", "pass@k, %", [Series("pass@k", points)]))
    if data["zero_variance"] == 1 and data["samples"] > data["prompts"]:
        blocks.append(Text("No prompt has answers of different scores: there is nothing to prefer in them."))
    return blocks


def sample_report(folder: Path) -> list[Block]:
    """What a report shows of a folder that `bottega sample` wrote."""
    return sample_blocks(json.loads((folder / FIGURES_FILE).read_text("utf-8")))


def _best(group: Sequence[Sample]) -> float:
    return max(each.score for each in group)


def _moments(values: Sequence[float]) -> dict[str, float]:
    return {"mean": fmean(values), "std": pstdev(values)}


def _powers(n: int) -> list[int]:
    """1, 2, 4 … and n."""
    return [k for k in (1 << bit for bit in range(n.bit_length())) if k < n] + [n]


def _histogram(scores: Sequence[float]) -> dict[str, int]:
    """How many answers have each score, or fall into each of ten equal bins."""
    counts = Counter(scores)
    if len(counts) <= FEW_VALUES:
        return {f"{score:g}": counts[score] for score in sorted(counts)}
    low, high = min(scores), max(scores)
    width = (high - low) / BINS
    places = Counter(min(int((score - low) / width), BINS - 1) for score in scores)
    return {f"{low + at * width:.3g} to {low + (at + 1) * width:.3g}": places[at] for at in range(BINS)}


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
