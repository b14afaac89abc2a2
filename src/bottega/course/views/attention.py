"""Attention maps.

Each row is a word, each column a word that it can look at; the darker, the more of the row's attention it has. Look for
heads that always look at the word before, at the beginning, or at the place where the next word stood before.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Bar, Bars, Block, Heat
from bottega.course.views.models import Models, held_out

STORY = held_out(3)


class Params(Config):
    """What can be changed."""

    text: str = Field(default="", max_length=600)
    """The beginning of a story, in words of the stories; empty: a held-out one."""
    stage: Literal["new", "small", "pretrained", "fine-tuned"] = "pretrained"
    """How far the model was trained: not at all, 300 steps, 1,500 steps, on questions too."""
    layer: int = Field(default=2, ge=1, le=2)
    """The layer."""
    head: int = Field(default=1, ge=1, le=4)
    """The head of this layer."""


def show(params: Params, models: Models) -> Iterator[Block]:
    """Look at the text with one head."""
    import torch

    from bottega.model.microscope import look

    ids, words = models.read(params.text or STORY)
    seen = look(models.decoder(params.stage), torch.tensor(ids))
    weights = seen.attention[params.layer - 1, params.head - 1].tolist()
    seen_by = [[value if at <= row else None for at, value in enumerate(each)] for row, each in enumerate(weights)]
    title = f"Layer {params.layer}, head {params.head}: where each word looks"
    yield Heat(title, "word", "looks at", words, words, seen_by, low=0.0, high=1.0)
    bars = [
        Bar(f"layer {layer + 1}, head {head + 1}: “{words[int(each[-1].argmax())]}”", float(each[-1].max()))
        for layer, heads in enumerate(seen.attention)
        for head, each in enumerate(heads)
    ]
    yield Bars(f"Where “{words[-1]}”, the last word, looks most", "weight", bars)
