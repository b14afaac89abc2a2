import numpy as np

from bottega.course.grading import close, equal, expect

LEVELS = np.array([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
])  # fmt: skip


def check_levels_come_back(task):
    """Numbers that are levels come back exactly, whatever the scale."""
    for scale in (1.0, 0.02, 300.0):
        codes, scales = task.quantise(LEVELS * scale, 16)
        equal(np.asarray(codes).astype(int), np.arange(16), call=f"quantise(LEVELS * {scale}, 16)[0]")
        close(task.dequantise(codes, scales), LEVELS * scale, 1e-9 * scale, f"dequantise(*quantise(LEVELS * {scale}, 16))")


def check_negative_block(task):
    """A block of negative numbers has a positive scale."""
    codes, scales = task.quantise(np.array([-4.0, -2.0, -1.0, -3.0]), 4)
    close(scales, np.array([4.0]), 1e-9, "quantise([-4, -2, -1, -3], 4)[1]")
    equal(int(codes[0]), 0, call="quantise([-4, -2, -1, -3], 4)[0][0]")


def check_zeros(task):
    """A block of zeros stays zero."""
    with np.errstate(all="raise"):
        codes, scales = task.quantise(np.zeros(8), 4)
    equal(np.asarray(codes).astype(int), np.full(8, 7), call="quantise(zeros(8), 4)[0]")
    close(task.dequantise(codes, scales), np.zeros(8), 1e-12, "dequantise(*quantise(zeros(8), 4))")


def check_nearest(task):
    """Random numbers: no level is nearer, and each block has its own scale."""
    draw = np.random.default_rng(2)
    for block in (4, 16, 64):
        values = draw.normal(size=4 * block) * np.repeat([0.01, 1.0, 5.0, 100.0], block)
        codes, scales = task.quantise(values, block)
        equal(np.asarray(scales).shape, (4,), call=f"quantise(values, {block})[1].shape")
        expected = np.abs(values.reshape(4, block)).max(1)
        close(scales, expected, 1e-9, f"quantise(values, {block})[1]")
        gaps = np.abs((values.reshape(4, block) / expected[:, None])[:, :, None] - LEVELS)
        chosen = np.take_along_axis(gaps.reshape(-1, 16), np.asarray(codes).astype(int)[:, None], 1)[:, 0]
        expect(bool(np.all(chosen <= gaps.reshape(-1, 16).min(1) + 1e-12)), "another level is nearer", f"quantise(values, {block})[0]")


def check_like_the_toolchain(task):
    """The codes are those of the toolchain, and so of bitsandbytes."""
    import torch

    from bottega.codec.nf4 import dequantise_nf4, quantise_nf4

    values = np.random.default_rng(5).normal(size=512)
    stored = quantise_nf4(torch.tensor(values), double_quant=False)
    close(task.dequantise(*task.quantise(values, 64)), dequantise_nf4(stored, (512,)).numpy(), 1e-6, "dequantise(*quantise(values))")
