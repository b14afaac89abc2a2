"""From requests to answers, through the engine: what several begin with is computed once, by its prefix cache.

Requests are sorted by their tokens, so that those which begin alike stand beside each other; of those with one context
the first goes ahead and the others find the context in the cache. There is no padding: a step takes as many tokens as
its budget allows, of whatever requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from typing import TypeVar

from bottega.core.errors import BottegaError
from bottega.evaluate.harness.requests import Generation, Request, Score, common, sampling_of
from bottega.evaluate.harness.store import Answer, Store, key_of
from bottega.evaluate.tasks.schema import TaskConfig
from bottega.generate.generator import Generator, Ticket
from bottega.generate.settings import Sampling
from bottega.model.paged import BLOCK

Name = TypeVar("Name")
WINDOW = 64  # contexts under way at a time, as far as the cache holds them


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
    for key, answer in chain(_score(generator, scores), _generate(generator, generations)):
        store.put(key, answer)
        progress(1)
    found = [store.get(key) for key in keys]
    assert all(answer is not None for answer in found)
    return [answer for answer in found if answer is not None]


def _score(generator: Generator, wanted: dict[str, Score]) -> Iterator[tuple[str, Answer]]:
    """Those that differ in their last token only (the letters of a question) are one request."""
    same: dict[tuple[tuple[int, ...], int], list[str]] = {}
    for key, request in wanted.items():
        same.setdefault((request.ids[:-1], request.start), []).append(key)
    order = sorted(same.values(), key=lambda keys: _context_first(wanted[keys[0]]))
    groups = [list(each) for _, each in groupby(order, key=lambda keys: _context_first(wanted[keys[0]])[0])]
    for window in _windows(groups, wanted, generator.statistics()["blocks_total"] * BLOCK):
        going = [each[0] for each in window] + [keys for each in window for keys in each[1:]]
        requests = [(keys, *_scoring([wanted[key] for key in keys])) for keys in going]
        for keys, ticket, _ in _run(generator, requests):
            yield from zip(keys, _scored(ticket, [wanted[key].ids[-1] for key in keys]), strict=True)


def _windows(
    groups: Sequence[list[list[str]]], wanted: Mapping[str, Score], cache: int
) -> Iterator[list[list[list[str]]]]:
    """Contexts that are under way at a time: no more than stay in the cache until the last continuation has run."""
    window: list[list[list[str]]] = []
    held, before = 0, ()
    for group in groups:
        longest = max((wanted[keys[0]].ids for keys in group), key=len)
        new = len(longest) - common(before, longest)
        if window and (held + new > cache // 2 or len(window) == WINDOW):
            yield window
            window, held, new = [], 0, len(longest)
        window.append(group)
        held, before = held + new, longest
    if window:
        yield window


def _context_first(request: Score) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return request.ids[: request.start], request.ids


def _scoring(requests: Sequence[Score]) -> tuple[tuple[int, ...], Sampling]:
    lasts = tuple(request.ids[-1] for request in requests)
    start = requests[0].start
    return requests[0].ids, Sampling(
        max_new_tokens=0, prompt_logprobs=1, prompt_logprobs_from=start, prompt_logprob_ids=lasts
    )


def _scored(ticket: Ticket, lasts: Sequence[int]) -> list[Answer]:
    """The sum over the scored tokens, for each of the last tokens in place of the prompt's own."""
    assert ticket.prompt_logprobs is not None
    scores = [score for score in ticket.prompt_logprobs if score is not None]
    ids = ticket.prompt_ids[-len(scores) :]
    before = sum(logprob for logprob, _ in scores[:-1])
    greedy = all(top[0][0] == id_ for id_, (_, top) in zip(ids[:-1], scores[:-1], strict=True))
    (best, _), *named = scores[-1][1]
    found: list[Answer] = []
    for last, (id_, logprob) in zip(lasts, named, strict=True):
        assert last == id_
        if not abs(before + logprob) < float("inf"):
            raise BottegaError("the model gives no finite probability to a continuation: its weights may be damaged")
        found.append((before + logprob, greedy and best == last))
    return found


def _generate(generator: Generator, wanted: dict[str, Generation]) -> Iterator[tuple[str, Answer]]:
    order = sorted(wanted, key=lambda key: (wanted[key].ids, wanted[key].number))
    for key, _, text in _run(generator, [(key, wanted[key].ids, sampling_of(wanted[key])) for key in order]):
        yield key, text


def _run(
    generator: Generator, requests: Sequence[tuple[Name, tuple[int, ...], Sampling]]
) -> Iterator[tuple[Name, Ticket, str]]:
    """Let them all run; each as it ends, with what it said."""
    tickets: dict[Ticket, tuple[Name, list[str]]] = {}
    try:
        for name, ids, sampling in requests:
            tickets[generator.submit(ids, sampling)] = (name, [])
        while tickets:
            for ticket, piece in generator.step():
                name, texts = tickets[ticket]
                if piece is not None:
                    texts.append(piece.text)
                if ticket.error is not None:
                    raise ticket.error
                if ticket.has_ended:
                    del tickets[ticket]
                    yield name, ticket, "".join(texts)
    finally:
        for ticket in tickets:
            generator.cancel(ticket)
