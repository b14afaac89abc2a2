"""The landscape of the loss.

The weights are moved along two random directions, each filter as long as the model's own (Li et al. 2018), and the loss
of held-out stories is measured on a grid. A trained model sits in a basin; a new one on a plain.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Block, Chart, Heat, Series
from bottega.course import world
from bottega.course.companion import HELDOUT_SEED
from bottega.course.views.models import Models

STORIES = 8


class Params(Config):
    """What can be changed."""

    stage: Literal["new", "small", "pretrained"] = "pretrained"
    """How far the model was trained: not at all, 300 steps, 1,500 steps."""
    span: float = Field(default=1.0, gt=0.0, le=4.0)
    """How far to go in each direction, as a share of the weights' own length."""
    points: int = Field(default=15, ge=5, le=25)
    """Points of the grid in each direction."""
    seed: int = Field(default=0, ge=0)
    """Of the directions."""


def show(params: Params, models: Models) -> Iterator[Block]:
    """Measure the loss on the grid."""
    import torch
    from torch.func import functional_call

    decoder, tokenizer = models.decoder(params.stage), models.tokenizer()
    rows = [tokenizer.encode_markup(f"<|story|> {s.text}") for s in world.stories(HELDOUT_SEED, STORIES)]
    length = min(map(len, rows))
    ids = torch.tensor([row[:length] for row in rows])
    weights = {name: each.detach() for name, each in decoder.named_parameters()}
    draw = torch.Generator().manual_seed(params.seed)
    first, second = ({name: _direction(each, draw) for name, each in weights.items()} for _ in range(2))
    places = torch.linspace(-params.span, params.span, params.points).tolist()

    @torch.no_grad()
    def loss(a: float, b: float) -> float:
        moved = {name: each + a * first[name] + b * second[name] for name, each in weights.items()}
        logits = functional_call(decoder, moved, (ids,))[:, :-1]
        return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()))

    losses = [[loss(a, b) for b in places] for a in places]
    names = [f"{place:+.2f}" for place in places]
    lowest = min(map(min, losses))
    high = min(max(map(max, losses)), lowest + 6)
    title = f"Loss of held-out stories, in nats a word; the lowest is {lowest:.2f}"
    yield Heat(title, "first direction", "second direction", names, names, losses, high=high, inverted=True)
    middle = params.points // 2
    along = Series("along the first", [(a, losses[at][middle]) for at, a in enumerate(places)])
    across = Series("along the second", list(zip(places, losses[middle], strict=True)))
    yield Chart("Two cuts through the middle", "share of the weights' length", "nats a word", [along, across])


def _direction(weight, draw):
    """A random direction whose rows are as long as the weight's own; vectors (norms) stay where they are."""
    import torch

    if weight.dim() < 2:
        return torch.zeros_like(weight)
    random = torch.randn(weight.shape, generator=draw)
    return random * weight.norm(dim=1, keepdim=True) / random.norm(dim=1, keepdim=True)
