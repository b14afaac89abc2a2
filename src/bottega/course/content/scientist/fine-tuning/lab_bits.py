"""Sixteen levels: what four bits keep.

Normally distributed numbers, and the weights of the course's model, are rounded to sixteen levels in several ways. The
levels of NF4 stand where normal numbers are; what its scales cost is counted, and what the rounding does to the loss.
"""

from collections.abc import Iterator

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Bar, Bars, Chart, Series, Table
from bottega.course import world
from bottega.course.companion import HELDOUT_SEED, companion
from bottega.course.lab import Effect, Event, Show, Value

BUDGET = 15


class Params(Config):
    """What can be changed."""

    block: int = Field(default=64, ge=2, le=4096, multiple_of=2)
    """Numbers that share a scale."""
    outliers: float = Field(default=0.0, ge=0.0, le=0.2)
    """Share of the normal numbers that are made ten times as large."""


def run(params: Params) -> Iterator[Event]:
    """Round, and measure."""
    import torch

    from bottega.codec.nf4 import LEVELS
    from bottega.model.load import load_decoder
    from bottega.tokenizer.tokenizer import Tokenizer

    draw = torch.Generator().manual_seed(0)
    numbers = torch.randn(1 << 18, generator=draw)
    large = torch.rand(len(numbers), generator=draw) < params.outliers
    numbers = torch.where(large, 10 * numbers, numbers)
    ways = {
        "even levels, one scale": even(numbers, len(numbers)), "even levels, blocks": even(numbers, params.block),
        "NF4, blocks": nf4(numbers, params.block, False), "NF4, scales in 8 bits": nf4(numbers, params.block, True),
    }  # fmt: skip
    errors = {name: float((value - numbers).square().mean() / numbers.square().mean()) for name, (value, _) in ways.items()}
    rows = [(name, f"{bits:.3f}", f"{100 * errors[name]:.2f} %") for name, (_, bits) in ways.items()]
    yield Show("ways", Table("262,144 normal numbers in four bits", ["way", "bits a number", "error, of the mean square"], rows))
    yield Show("levels", Bars("The levels of NF4", "of the block's largest", [Bar(f"{at}", level) for at, level in enumerate(LEVELS)], from_zero=False))
    curve = []
    for block in (16, 32, 64, 128, 256, 1024, 4096):
        value, bits = nf4(numbers, block, False)
        curve.append((bits, float((value - numbers).square().mean() / numbers.square().mean())))
    yield Show("blocks", Chart("Smaller blocks cost bits and save error", "bits a number", "error", [Series("NF4, float32 scales", sorted(curve))]))

    folder = companion("pretrained")
    decoder, tokenizer = load_decoder(folder), Tokenizer.load(folder)
    rows = [tokenizer.encode_markup(f"<|story|> {s.text}") for s in world.stories(HELDOUT_SEED, 60)]
    losses = {"float32": loss_of(decoder, rows)}
    original = {name: value.clone() for name, value in decoder.state_dict().items()}
    for name, round_to in (("NF4", lambda w: nf4(w.flatten(), params.block, True)[0].view_as(w)),
                           ("even levels, blocks", lambda w: even(w.flatten(), params.block)[0].view_as(w)),
                           ("even levels, one scale", lambda w: even(w.flatten(), w.numel())[0].view_as(w))):  # fmt: skip
        with torch.no_grad():
            for key, value in decoder.state_dict().items():
                inside = ".layers." in key and value.dim() == 2
                value.copy_(round_to(original[key]) if inside else original[key])
        losses[name] = loss_of(decoder, rows)
    yield Show("losses", Table("The course's model, its layers rounded", ["weights", "nats a word"],
                               [(name, f"{value:.4f}") for name, value in losses.items()]))  # fmt: skip
    bits = {name: bits for name, (_, bits) in ways.items()}
    yield Value("bits_plain", bits["NF4, blocks"], "bits a number", 0)
    yield Value("bits_double", bits["NF4, scales in 8 bits"], "bits a number", 0)
    yield Value("error_one", errors["even levels, one scale"], "of the mean square", 0.1)
    yield Value("error_even", errors["even levels, blocks"], "of the mean square", 0.1)
    yield Value("error_nf4", errors["NF4, blocks"], "of the mean square", 0.1)
    yield Value("error_double", errors["NF4, scales in 8 bits"], "of the mean square", 0.1)
    yield Value("loss_full", losses["float32"], "nats a word", 0.1)
    yield Value("loss_nf4", losses["NF4"], "nats a word", 0.1)
    yield Value("loss_even", losses["even levels, blocks"], "nats a word", 0.1)
    if params.outliers == 0 and params.block == 64:
        yield Effect("NF4 has a smaller error than even levels", errors["NF4, blocks"] < 0.9 * errors["even levels, blocks"])
        yield Effect("scales in 8 bits cost next to nothing", errors["NF4, scales in 8 bits"] < 1.1 * errors["NF4, blocks"])
        yield Effect("and save three eighths of a bit", 0.36 < bits["NF4, blocks"] - bits["NF4, scales in 8 bits"] < 0.38)
    yield Effect("one scale for all is the worst", errors["even levels, one scale"] >= errors["even levels, blocks"])


def even(values, block: int):
    """Rounded to fifteen even levels from −1 to 1 times the block's largest; and the bits a number takes."""
    rows = values.view(-1, block) if len(values) % block == 0 else values.view(1, -1)
    scale = rows.abs().amax(1, keepdim=True).clamp_min(1e-38) / 7
    return ((rows / scale).round().clamp(-7, 7) * scale).view(-1), 4 + 32 / rows.shape[1]


def nf4(values, block: int, double: bool):
    """There and back through the toolchain's NF4; and the bits a number takes, scales and all."""
    from bottega.codec.nf4 import dequantise_nf4, quantise_nf4

    stored = quantise_nf4(values, double_quant=double, block=block)
    size = 8 * (stored.codes.numel() + stored.scales.numel() * stored.scales.element_size())
    if stored.outer is not None:
        size += 32 * stored.outer.numel()
    return dequantise_nf4(stored, tuple(values.shape)), size / values.numel()


def loss_of(decoder, rows) -> float:
    """Mean −ln p of a word."""
    import torch

    total = count = 0
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor(row)
            log_probs = decoder(ids[None])[0, :-1].log_softmax(-1)
            total -= float(log_probs.gather(1, ids[1:, None]).sum())
            count += len(row) - 1
    return total / count
