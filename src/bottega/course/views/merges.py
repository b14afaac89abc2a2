"""Tokens and merges.

A tokenizer is trained on the stories with as many merges as you like, and cuts your text. Each merge joins the pair
that was most frequent when its turn came; a text unlike the stories stays in small pieces.
"""

from collections.abc import Iterator

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Block, Chart, Series, Spans, Style, Table
from bottega.course import world
from bottega.course.views.models import Models
from bottega.tokenizer.training import SMALLEST_VOCABULARY, train

STORIES = 300
STYLES: tuple[Style, Style] = ("even", "odd")


class Params(Config):
    """What can be changed."""

    text: str = Field(default="the little fox found an unforgettable red ball .", min_length=1, max_length=400)
    """The text to cut."""
    merges: int = Field(default=60, ge=0, le=320)
    """Merges that the tokenizer learned."""


def show(params: Params, _: Models) -> Iterator[Block]:
    """Train, cut, and show what was joined on the way."""
    texts = [story.text for story in world.stories(0, STORIES)]
    tokenizer = train(iter(texts), SMALLEST_VOCABULARY + params.merges, min_frequency=1)
    cut = tokenizer.encode(params.text, add_special_tokens=False)
    size = len(params.text.encode())
    spans: list[tuple[str, Style]] = []
    end = 0
    for at, (a, b) in enumerate(cut.offsets):  # tokens that are bytes of one character stand at the same place
        if b > end:
            spans.append((params.text[max(a, end) : b], STYLES[at % 2]))
        end = max(end, b)
    yield Spans(f"{size} bytes in {len(cut.ids)} tokens: {size / max(len(cut.ids), 1):.2f} bytes a token", spans)
    made = (tokenizer.id_to_token(SMALLEST_VOCABULARY + at) for at in range(params.merges))
    names = [name for name in made if name is not None]  # the stories may have no more pairs to join
    used = set(cut.ids)
    rows = [(at + 1, _shown(name), SMALLEST_VOCABULARY + at in used) for at, name in enumerate(names)]
    points = [(at + 1, len(_shown(name))) for at, name in enumerate(names)]
    if points:
        yield Table("The merges, the last forty of them", ["merge", "makes", "in your text"], rows[-40:])
        yield Chart("How long the tokens get", "merge", "characters", [Series("token made", points)])


def _shown(token: str) -> str:
    return token.replace("Ġ", "␣")
