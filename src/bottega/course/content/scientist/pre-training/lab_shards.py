"""Two workers, one gradient.

A batch is cut in two, each half has its gradient computed alone, and the sums are the whole batch's gradient, bit for
nearly bit. Then workers in a ring add up what they have, and the bytes that each sends are counted.
"""

from collections.abc import Iterator

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Table
from bottega.course import world
from bottega.course.companion import companion
from bottega.course.lab import Effect, Event, Say, Show, Value

BUDGET = 15


class Params(Config):
    """What can be changed."""

    workers: int = Field(default=4, ge=2, le=16)
    """Workers in the ring."""


def run(params: Params) -> Iterator[Event]:
    """Compare gradients, then send them round."""
    import torch

    from bottega.model.load import load_decoder
    from bottega.tokenizer.tokenizer import Tokenizer

    folder = companion("new")
    decoder, tokenizer = load_decoder(folder), Tokenizer.load(folder)
    stories = [torch.tensor(tokenizer.encode_markup(f"<|story|> {s.text}")) for s in world.stories(3, 12)]
    trained = sum(len(each) - 1 for each in stories)

    def gradient(part, divisor: float):
        decoder.zero_grad()
        for ids in part:
            log_probs = decoder(ids[None])[0, :-1].log_softmax(-1)
            (-log_probs.gather(1, ids[1:, None]).sum() / divisor).backward()
        return torch.cat([p.grad.flatten() for p in decoder.parameters() if p.grad is not None])

    whole = gradient(stories, trained)
    halves = gradient(stories[:3], trained) + gradient(stories[3:], trained)
    means = [gradient(part, sum(len(s) - 1 for s in part)) for part in (stories[:3], stories[3:])]
    right, wrong = (float((each - whole).norm() / whole.norm()) for each in (halves, (means[0] + means[1]) / 2))
    yield Say(f"Sums of both halves, each over all {trained} words: {right:.1e} from the whole batch's gradient.")
    yield Say(f"The mean of the halves' own means: {wrong:.1e} from it, as one half has 3 stories and the other 9.")
    rows = []
    for workers in (2, 4, 8, params.workers):
        sent = ring_bytes(workers, whole.numel())
        rows.append((workers, f"{sent:,}", f"{sent / (4 * whole.numel()):.3f}", f"{2 * (workers - 1) / workers:.3f}"))
    yield Show("ring", Table("Bytes that each worker sends", ["workers", "bytes", "of the gradient", "2 (n − 1) / n"], rows))
    yield Value("parameters", whole.numel(), "parameters", 0)
    yield Value("right", right, "relative difference", 100)
    yield Value("wrong", wrong, "relative difference", 0.3)
    yield Value("ring_share", ring_bytes(params.workers, whole.numel()) / (4 * whole.numel()), "of the gradient", 0.01)
    yield Effect("sums over the whole batch's count give the whole batch's gradient", right < 1e-5)
    yield Effect("means of means do not", wrong > 1e-2)
    yield Effect("however many workers, none sends twice its gradient", all(float(row[2]) < 2 for row in rows))


def ring_bytes(workers: int, values: int) -> int:
    """Send a gradient round a ring in pieces, first adding, then copying, and count what one worker sends."""
    import torch

    pieces = [list(torch.full((values,), float(worker + 1)).tensor_split(workers)) for worker in range(workers)]
    sent = 0
    for phase in range(2):
        for step in range(workers - 1):
            moving = [pieces[w][(w - step + phase) % workers].clone() for w in range(workers)]
            sent += 4 * moving[0].numel()
            for worker in range(workers):
                at, piece = (worker - 1 - step + phase) % workers, moving[worker - 1]
                pieces[worker][at] = pieces[worker][at] + piece if phase == 0 else piece
    total = workers * (workers + 1) / 2
    assert all(bool((piece == total).all()) for worker in pieces for piece in worker)
    return sent
