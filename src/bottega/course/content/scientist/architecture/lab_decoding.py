"""Greedy, warm, cut off, searched: the ways to say the next word.

One model, five ways to choose from what it predicts. As the true probability of every story is known, it can be told
what each way loses: greedy decoding and beam search always tell the same story, high temperatures tell impossible ones.
"""

from collections.abc import Iterator
from itertools import pairwise

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Chart, Series, Table
from bottega.course import world
from bottega.course.companion import STORY, companion
from bottega.course.lab import Effect, Event, Say, Show, Step, Value

BUDGET = 45
WAYS = {
    "greedy": {"temperature": 0.0},
    "temperature 0.5": {"temperature": 0.5},
    "temperature 1": {"temperature": 1.0},
    "temperature 1.5": {"temperature": 1.5},
    "top-k 5": {"temperature": 1.5, "top_k": 5},
    "top-p 0.9": {"temperature": 1.5, "top_p": 0.9},
}


class Params(Config):
    """What can be changed."""

    stories: int = Field(default=40, ge=5, le=300)
    """Stories to let the model write in each way."""


def run(params: Params) -> Iterator[Event]:
    """Write stories in every way, and measure them."""
    from bottega.generate.generator import Generator
    from bottega.generate.search.find import find
    from bottega.generate.search.settings import Search
    from bottega.generate.settings import Sampling

    generator = Generator.load(companion("pretrained"), threads=1, dtype="float32", max_batch=16)
    prompt = generator.tokenizer.encode_markup("<|story|>")
    rows, found = [], {}
    for index, (way, settings) in enumerate(WAYS.items()):
        sampling = [Sampling(**STORY, seed=i, **settings) for i in range(params.stories)]
        texts = _write(generator, prompt, sampling)
        found[way] = _measures(texts)
        rows.append((way, *(f"{found[way][name]:.2f}" for name in ("fluent", "sound", "different", "distinct_2"))))
        yield Step(index + 1, len(WAYS) + 1, way)
    yield Show("ways", Table(
        "What each way writes", ["way", "fluent", "sound", "different stories", "distinct pairs of words"], rows,
        note="Shares. Fluent: every sentence is a possible one. Sound: names and things agree as well. "
        "The two last ways cut off at temperature 1.5.",
    ))  # fmt: skip

    curve = []
    for tenths in (2, 5, 8, 10, 12, 15, 18):
        sampling = [Sampling(**STORY, seed=i, temperature=tenths / 10) for i in range(params.stories // 2)]
        texts = _write(generator, prompt, sampling)
        curve.append((tenths / 10, _measures(texts)))
    lines = [Series(name, [(t, each[name]) for t, each in curve]) for name in ("sound", "different")]
    yield Show("temperature", Chart("What temperature buys and costs", "temperature", "share", lines))

    greedy = generator.follow(generator.submit(prompt, Sampling(**STORY, temperature=0.0, logprobs=True)))
    best = {1: sum(piece.logprob or 0.0 for piece in greedy)}
    for beams in (2, 4, 8):
        search = Search(num_beams=beams, length_penalty=0.0)
        answer = find(generator.decoder, generator.tokenizer, prompt, Sampling(**STORY), search).sequences[0]
        best[beams] = answer.logprob
        yield Say(f"{beams} beams: {answer.text.strip()[:80]} …")
    likeliest = world.likeliest_story().log_probability
    beams = [(n, f"{value:.2f}") for n, value in best.items()]
    note = f"The likeliest story of the grammar has {likeliest:.2f}."
    yield Show("beams", Table("Beam search: ln p of the story it finds", ["beams", "ln p"], beams, note=note))
    yield Step(len(WAYS) + 1, len(WAYS) + 1)
    yield Value("greedy_different", found["greedy"]["count"], "different stories", 0)
    yield Value("sound_1", found["temperature 1"]["sound"], "share", 0.4)
    yield Value("sound_15", found["temperature 1.5"]["sound"], "share", 1.0)
    yield Value("sound_top_p", found["top-p 0.9"]["sound"], "share", 0.5)
    yield Value("beam_1", best[1], "nats", 0.1)
    yield Value("beam_8", best[8], "nats", 0.1)
    yield Value("likeliest", likeliest, "nats", 0)
    yield Effect("greedy decoding tells one story only", found["greedy"]["count"] == 1)
    yield Effect("at temperature 1.5 fewer stories are sound than at 1",
                 found["temperature 1.5"]["sound"] < found["temperature 1"]["sound"])  # fmt: skip
    tail = found["top-p 0.9"]["sound"] > found["temperature 1.5"]["sound"]
    yield Effect("cutting the tail off (top-p) brings them back", tail)
    yield Effect("eight beams find a story at least as likely as one", best[8] >= best[1] - 1e-4)


def _write(generator, prompt, sampling) -> list[str]:
    """A story for each of the settings; they run together."""
    tickets = [generator.submit(prompt, each) for each in sampling]
    texts = {id(ticket): "" for ticket in tickets}
    while generator.has_work:
        for ticket, piece in generator.step():
            texts[id(ticket)] += piece.text if piece is not None else ""
    return [text.strip() for text in texts.values()]


def _measures(texts: list[str]) -> dict[str, float]:
    """Shares of fluent, sound and different stories; distinct-2 (Li et al. 2016) over all of them."""
    pairs = [pair for text in texts for pair in pairwise(text.split())]
    return {
        "fluent": sum(map(world.is_fluent, texts)) / len(texts),
        "sound": sum(world.parse(text) is not None for text in texts) / len(texts),
        "different": len(set(texts)) / len(texts),
        "distinct_2": len(set(pairs)) / len(pairs),
        "count": len(set(texts)),
    }

