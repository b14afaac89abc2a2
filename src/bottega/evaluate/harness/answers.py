"""From requests to answers, through the engine: what several begin with is computed once, by its prefix cache.

Requests are sorted by their tokens, so that those which begin alike stand beside each other; of those with one context
the first goes ahead and the others find the context in the cache. There is no padding: a step takes as many tokens as
its budget allows, of whatever requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from bottega.core.errors import BottegaError
from bottega.evaluate.harness.requests import Generation, Request, Score
from bottega.evaluate.harness.store import Answer, Store, key_of
from bottega.evaluate.tasks.schema import TaskConfig
from bottega.generate.generator import Generator, Ticket
from bottega.generate.settings import Sampling

WINDOW = 64  # contexts under way at a time


def answer_all(
    generator: Generator,
    task: TaskConfig,
    requests: Sequence[Request],
    store: Store,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Answer]:
    """The answer of each request; `progress` is told how many more there are. Raises BottegaError if one cannot be."""
    keys = [key_of(task.task, task.version, request) for request in requests]
    wanted = {key: request for key, request in zip(keys, requests, strict=True) if store.get(key) is None}
    store.hits += len(keys) - len(wanted)
    progress(len(keys) - len(wanted))
    scores = {key: request for key, request in wanted.items() if isinstance(request, Score)}
    generations = {key: request for key, request in wanted.items() if isinstance(request, Generation)}
    for key, answer in (*_score(generator, scores), *_generate(generator, generations)):
        store.put(key, answer)
        progress(1)
    found = [store.get(key) for key in keys]
    assert all(answer is not None for answer in found)
    return [answer for answer in found if answer is not None]


def _score(generator: Generator, wanted: dict[str, Score]) -> Iterator[tuple[str, Answer]]:
    order = sorted(wanted, key=lambda key: (wanted[key].ids[: wanted[key].start], wanted[key].ids))
    groups = [list(keys) for _, keys in groupby(order, key=lambda key: wanted[key].ids[: wanted[key].start])]
    for first in range(0, len(groups), WINDOW):
        window = groups[first : first + WINDOW]
        heads = [keys[0] for keys in window]
        rest = [key for keys in window for key in keys[1:]]
        yield from _run(generator, [(key, *_scoring(wanted[key])) for key in (*heads, *rest)], _scored)


def _scoring(request: Score) -> tuple[tuple[int, ...], Sampling]:
    return request.ids, Sampling(max_new_tokens=0, prompt_logprobs=1, prompt_logprobs_from=request.start)


def _scored(ticket: Ticket, _text: str) -> Answer:
    scores = ticket.prompt_logprobs
    assert scores is not None
    total, greedy = 0.0, True
    for id_, score in zip(ticket.prompt_ids, scores, strict=True):
        if score is not None:
            logprob, best = score
            total += logprob
            greedy &= best[0][0] == id_
    if not abs(total) < float("inf"):
        raise BottegaError("the model gives no finite probability to a continuation: its weights may be damaged")
    return total, greedy


def _generate(generator: Generator, wanted: dict[str, Generation]) -> Iterator[tuple[str, Answer]]:
    order = sorted(wanted, key=lambda key: (wanted[key].ids, wanted[key].number))
    yield from _run(generator, [(key, wanted[key].ids, _sampling(wanted[key])) for key in order], lambda _, text: text)


def _sampling(request: Generation) -> Sampling:
    return Sampling(
        max_new_tokens=request.max_tokens,
        stop=request.stop,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        seed=request.number,
    )


def _run(
    generator: Generator,
    requests: Sequence[tuple[str, tuple[int, ...], Sampling]],
    read: Callable[[Ticket, str], Answer],
) -> Iterator[tuple[str, Answer]]:
    """Let them all run; each answer as it comes."""
    tickets: dict[Ticket, tuple[str, list[str]]] = {}
    try:
        for key, ids, sampling in requests:
            tickets[generator.submit(ids, sampling)] = (key, [])
        while tickets:
            for ticket, piece in generator.step():
                key, texts = tickets[ticket]
                if piece is not None:
                    texts.append(piece.text)
                if ticket.error is not None:
                    raise ticket.error
                if ticket.has_ended:
                    del tickets[ticket]
                    yield key, read(ticket, "".join(texts))
    finally:
        for ticket in tickets:
            generator.cancel(ticket)
