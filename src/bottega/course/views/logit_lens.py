"""The logit lens.

The residual stream behind each layer is read as if it were the last: normalise, project with the head. In each cell
stands the word that the model would say next at this point; the darker, the surer it is.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Block, Chart, Heat, Series
from bottega.course.views.models import Models, held_out

STORY = " ".join(held_out(3).split()[:24])


class Params(Config):
    """What can be changed."""

    text: str = Field(default="", max_length=600)
    """The beginning of a story, in words of the stories; empty: half of a held-out one."""
    stage: Literal["new", "small", "pretrained", "fine-tuned"] = "pretrained"
    """How far the model was trained: not at all, 300 steps, 1,500 steps, on questions too."""


def show(params: Params, models: Models) -> Iterator[Block]:
    """Read every layer's stream."""
    import torch

    from bottega.model.microscope import logit_lens, look

    ids, words = models.read(params.text or STORY)
    decoder, tokenizer = models.decoder(params.stage), models.tokenizer()
    lens = logit_lens(decoder, look(decoder, torch.tensor(ids)).residual).softmax(-1)
    best = lens.max(-1)
    texts = [[tokenizer.token_text(each) for each in row] for row in best.indices.tolist()]
    rows = ["embedding", *(f"layer {at + 1}" for at in range(len(lens) - 1))]
    turned = Heat(
        "What each layer would say next", "after the word", "read behind", words, rows,
        torch.transpose(best.values, 0, 1).tolist(), [list(each) for each in zip(*texts, strict=True)], 0.0, 1.0,
    )  # fmt: skip
    yield turned
    if len(ids) > 1:
        picked = lens[:, :-1].gather(2, torch.tensor(ids[1:]).expand(len(lens), -1).unsqueeze(2)).log().mean((1, 2))
        points = [(layer, -float(each)) for layer, each in enumerate(picked)]
        yield Chart("Loss of this text, read there", "layers passed", "nats per word", [Series("loss", points)])
