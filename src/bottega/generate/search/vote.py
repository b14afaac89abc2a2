"""Several samples of one prompt, and one of them chosen: best-of-n by probability, self-consistency by vote.

Self-consistency is Wang et al. 2022 (arXiv:2203.11171): the answer on which most samples agree, whatever led to it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

import torch

from bottega.generate.search.hypothesis import Hypothesis, Reader, draw, new_rows, nothing_follows
from bottega.generate.search.rows import Rows
from bottega.generate.settings import Sampling

_NUMBER = re.compile(r"(?:(?<!\w)[-+])?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?:(?<!\w)[-+])?\.\d+")


@torch.inference_mode()
def sample(rows: Rows, sampling: Sampling, number: int, reader: Reader) -> list[Hypothesis]:
    """So many answers, drawn in one batch; sample i has the seed plus i. The score is the mean log-probability.

    Those that come to where every token is forbidden are left out. Raises UserError if all do.
    """
    answers = new_rows(rows.prompt, sampling, number)
    readers = [reader.fork() for _ in answers]
    found: dict[int, Hypothesis] = {}
    logprobs, live = [0.0] * number, list(range(number))
    logits = rows.begin().expand(number, -1)
    while live:
        own = logits.log_softmax(-1)
        going = []
        for place, token in enumerate(draw(logits, [answers[index] for index in live])):
            if token is None:
                continue
            index = live[place]
            answer = answers[index].tokens[len(rows.prompt) :]
            logprobs[index] += float(own[place, token])
            stopped = readers[index].add(token)
            if stopped or len(answer) == rows.max_new_tokens:
                total, text = logprobs[index], readers[index].finish()
                found[index] = Hypothesis(answer, total / len(answer), total, text, "stop" if stopped else "length")
            else:
                going.append(place)
        live = [live[place] for place in going]
        if live:
            logits = rows.step([answers[index].tokens[-1] for index in live], going)
    if not found:
        raise nothing_follows()
    return [found[index] for index in sorted(found)]


@dataclass(frozen=True)
class Vote:
    """What samples agreed on.

    Attributes:
        winner: the answer of most samples, None if none of them has one.
        counts: each answer with its number of samples, most first.
        answers: the answer of each sample, None where there is none.
    """

    winner: str | None
    counts: list[tuple[str, int]]
    answers: list[str | None]


def vote(texts: Sequence[str], weights: Sequence[float], pattern: str | None = None) -> Vote:
    """The answer that most `texts` contain; of equally many, that of the text with the highest weight.

    `pattern` is as in `answer_in`.
    """
    answers = [answer_in(text, pattern) for text in texts]
    counts = Counter(answer for answer in answers if answer is not None)
    best: dict[str, float] = {}
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            best[answer] = max(weight, best.get(answer, weight))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], -best[item[0]]))
    return Vote(ranked[0][0] if ranked else None, ranked, answers)


def answer_in(text: str, pattern: str | None = None) -> str | None:
    """The answer in a text: the last match of `pattern` (its first group if it has one), or else the last number.

    Numbers are written alike: 1,000 and 1000.0 are both 1000.
    """
    if pattern is None:
        numbers = _NUMBER.findall(text)
        return _plain_number(numbers[-1]) if numbers else None
    matches = list(re.finditer(pattern, text))
    if not matches:
        return None
    found = matches[-1].group(1 if matches[-1].re.groups else 0)
    return found.strip() if found is not None else None


def _plain_number(text: str) -> str:
    try:
        value = Decimal(text.replace(",", ""))
    except InvalidOperation:
        return text
    plain = format(value, "f")
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return "0" if plain in ("-0", "") else plain
