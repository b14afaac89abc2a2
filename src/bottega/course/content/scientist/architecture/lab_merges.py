"""Merge by merge: byte-pair encoding.

The tokenizer begins with 256 bytes and joins the pair that occurs most often, again and again. Each merge makes texts
shorter and the vocabulary larger; what it saves falls from merge to merge.
"""

from collections.abc import Iterator
from itertools import pairwise

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Chart, Series, Spans, Style, Table
from bottega.course import world
from bottega.course.lab import Effect, Event, Say, Show, Step, Value
from bottega.tokenizer.training import SMALLEST_VOCABULARY, train

BUDGET = 15
SIZES = (0, 5, 10, 20, 40, 80, 120, 160, 240, 320)


class Params(Config):
    """What can be changed."""

    stories: int = Field(default=300, ge=20, le=5000)
    """Stories to learn from."""
    text: str = Field(default="unforgettable", max_length=200)
    """A word to cut."""


def run(params: Params) -> Iterator[Event]:
    """Train tokenizers with more and more merges."""
    texts = [story.text for story in world.stories(0, params.stories)]
    size = sum(len(text.encode()) for text in texts)
    heldout = [story.text for story in world.stories(77, 100)]
    held = sum(len(text.encode()) for text in heldout)
    yield Say(f"{params.stories} stories, {size:,} bytes.")
    points, cut = [], []
    for index, merges in enumerate(SIZES):
        tokenizer = train(iter(texts), SMALLEST_VOCABULARY + merges, min_frequency=1)
        tokens = sum(len(each.ids) for each in tokenizer.encode_batch(heldout, add_special_tokens=False))
        points.append((merges, held / tokens))
        if merges in (0, 20, 80, 320):
            cut.append((merges, " · ".join(tokenizer.encode(params.text, add_special_tokens=False).tokens)))
        yield Step(index + 1, len(SIZES), f"{merges} merges: {held / tokens:.2f} bytes a token")
    largest = train(iter(texts), SMALLEST_VOCABULARY + SIZES[-1], min_frequency=1)
    curve = Series("held-out stories", points)
    yield Show("compression", Chart("Bytes per token", "merges", "bytes per token", [curve]))
    yield Show("cut", Table(f"{params.text!r} in tokens", ["merges", "tokens"], cut))
    yield Show("merges", Table("The first merges", ["merge", "makes"], _merges(largest, 12)))
    pieces = largest.encode(heldout[0], add_special_tokens=False)
    styles: tuple[Style, Style] = ("even", "odd")
    spans: list[tuple[str, Style]] = [(heldout[0][a:b], styles[i % 2]) for i, (a, b) in enumerate(pieces.offsets)]
    yield Show("spans", Spans(f"A held-out story in {len(spans)} tokens", spans))
    unknown = largest.encode("Ünïcode 漢字 🙂", add_special_tokens=False)
    same = largest.decode(unknown.ids) == "Ünïcode 漢字 🙂"
    yield Value("bytes_per_token_100", dict(points)[80], "bytes per token", 0.02)
    yield Value("bytes_per_token", points[-1][1], "bytes per token", 0.02)
    yield Value("saved_first", dict(points)[20] - 1, "bytes per token", 0.02)
    yield Value("saved_last", points[-1][1] - points[-2][1], "bytes per token", 0.1)
    yield Effect("without a merge a token is a byte", points[0][1] == 1)
    yield Effect("every further merge saves less", _is_concave(points[:6]))
    yield Effect("a text of characters never seen comes back byte for byte", same)


def _merges(tokenizer, count: int) -> list[tuple[int, str]]:
    """The tokens of the first merges, with spaces shown."""
    ids = range(SMALLEST_VOCABULARY, SMALLEST_VOCABULARY + count)
    return [(i + 1, tokenizer.id_to_token(id_).replace("Ġ", "␣")) for i, id_ in enumerate(ids)]


def _is_concave(points: list[tuple[float, float]]) -> bool:
    """Whether what each merge saves, in tokens, falls from part to part."""
    lengths = [(merges, 1 / value) for merges, value in points]
    slopes = [(a[1] - b[1]) / (b[0] - a[0]) for a, b in pairwise(lengths)]
    return all(a > b for a, b in pairwise(slopes))
