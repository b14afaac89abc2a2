"""Scored answers: the file they are kept in while they come, and what is chosen of them.

Rejection sampling keeps the best of n (Touvron et al. 2023, arXiv:2307.09288, section 3.2.2), or all that are good
enough (STaR, Zelikman et al. 2022, arXiv:2203.14465); pairs of best and worst are on-policy preferences (Yuan et al.
2024, arXiv:2401.10020). Answers that were cut off are never trained on: who learns from them does not stop.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bottega.core.append import open_lines
from bottega.core.atomic import write_bytes
from bottega.data.formats.kinds import Prompt
from bottega.train.sample.prompts import messages_of


@dataclass(frozen=True)
class Sample:
    """One answer and its scores, a row of samples.jsonl.

    `prompt` and `sample` are places in the file of prompts and among the prompt's answers; `log_prob` is the answer's
    whole log-probability by the model, in nats; `rewards` are the components of `score` before their weights.
    """

    prompt: int
    sample: int
    text: str
    finished: bool
    tokens: int
    log_prob: float
    score: float
    rewards: Mapping[str, float] = field(default_factory=dict)


class SampleFile:
    """Samples as they come: all of a prompt's answers in one write, so that a killed run goes on behind them."""

    def __init__(self, path: Path, n: int) -> None:
        """Read what an interrupted run left; what is not whole is forgotten."""
        self.path = path
        self.samples = _whole_groups(_read(path), n) if path.is_file() else {}
        write_bytes(path, b"".join(_line(each) for group in self.samples.values() for each in group))
        self._file = open_lines(path)

    def add(self, group: Sequence[Sample]) -> None:
        """All answers to one prompt; they are in the file when this returns, also if the process is killed then."""
        self._file.write(b"".join(map(_line, group)))
        self.samples[group[0].prompt] = list(group)

    def close(self) -> None:
        """No more will come."""
        self._file.close()


def chosen(groups: Iterable[Sequence[Sample]], kind: str, least: float | None) -> Iterator[Sample]:
    """The answers that `best`, `above` or `all` keeps; of equal scores the first, of equal texts one."""
    for group in groups:
        good = _finished(group)
        if least is not None:
            good = [each for each in good if each.score >= least]
        if kind == "best":
            good = [max(good, key=lambda each: each.score)] if good else []
        yield from good


def pairs(groups: Iterable[Sequence[Sample]], gap: float) -> Iterator[tuple[Sample, Sample]]:
    """(best, worst) of each prompt whose scores differ, by `gap` at least."""
    for group in groups:
        good = _finished(group)
        if not good:
            continue
        best, worst = max(good, key=lambda each: each.score), min(good, key=lambda each: each.score)
        if best.score > worst.score and best.score - worst.score >= gap:
            yield best, worst


def sft_row(prompt: Prompt, sample: Sample, *, plain: bool) -> dict[str, Any]:
    """A row to train on with `--stage sft`."""
    if plain:
        return {"prompt": prompt.prompt, "completion": sample.text}
    return {"messages": [*messages_of(prompt), _said(sample)], **_tools(prompt)}


def pair_row(prompt: Prompt, best: Sample, worst: Sample, *, plain: bool) -> dict[str, Any]:
    """A row to train on with `--stage dpo` and its like."""
    scores = {"score_chosen": best.score, "score_rejected": worst.score}
    if plain:
        return {"prompt": prompt.prompt, "chosen": best.text, "rejected": worst.text, **scores}
    sides = {"chosen": [_said(best)], "rejected": [_said(worst)]}
    return {"prompt": messages_of(prompt), **sides, **scores, **_tools(prompt)}


def as_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """JSON lines."""
    return b"".join(json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n" for row in rows)


def _tools(prompt: Prompt) -> dict[str, Any]:
    return {"tools": list(prompt.tools)} if prompt.tools else {}


def _said(sample: Sample) -> dict[str, Any]:
    return {"role": "assistant", "content": sample.text}


def _finished(group: Sequence[Sample]) -> list[Sample]:
    """Those that end by themselves and say something, each text once."""
    first: dict[str, Sample] = {}
    for each in group:
        if each.finished and each.text.strip():
            first.setdefault(each.text, each)
    return list(first.values())


def _line(sample: Sample) -> bytes:
    return as_lines([asdict(sample)])


def _read(path: Path) -> Iterator[Sample]:
    for line in path.read_bytes().split(b"\n"):
        with suppress(ValueError, TypeError):  # a line that was cut off
            yield Sample(**json.loads(line))


def _whole_groups(samples: Iterable[Sample], n: int) -> dict[int, list[Sample]]:
    """By prompt, where all its answers are there."""
    groups: dict[int, dict[int, Sample]] = {}
    for each in samples:
        groups.setdefault(each.prompt, {})[each.sample] = each
    wanted = list(range(n))
    return {prompt: [own[at] for at in wanted] for prompt, own in groups.items() if sorted(own) == wanted}
