import numpy as np

from bottega.course.grading import close, equal, expect

LEVELS = np.array([
    -1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0,
])


def check_levels(task):
    """The levels themselves come back unchanged."""
    codes, scales = task.quantise(LEVELS * 3.0, 16)
    equal(np.asarray(codes).astype(int).tolist(), list(range(16)), "quantise(LEVELS * 3, 16)[0]")
    close(np.asarray(scales), np.array([3.0]), 1e-12, "quantise(LEVELS * 3, 16)[1]")
    close(task.dequantise(np.arange(16, dtype=np.uint8), np.array([3.0]), 16), LEVELS * 3.0, 1e-9, "dequantise of it")


def check_negative(task):
    """A block whose largest value is negative keeps its sign."""
    codes, scales = task.quantise(np.array([-2.0, 0.5, 1.0]), 64)
    close(np.asarray(scales), np.array([2.0]), 1e-12, "quantise([-2, 0.5, 1])[1]", "the scale is the greatest magnitude")
    equal(np.asarray(codes).astype(int).tolist(), [0, 10, 12], "quantise([-2, 0.5, 1])[0]",
          "divided by 2 they are -1, 0.25 and 0.5; 0.5 is nearer to 0.4407 than to 0.5626")


def check_random(task):
    """Every value becomes its nearest level, block by block; the last block may be short."""
    draw = np.random.default_rng(0)
    for _ in range(30):
        n, block = int(draw.integers(1, 300)), int(draw.choice([4, 16, 64]))
        values = draw.normal(size=n) * np.exp(draw.normal(size=n))
        codes, scales = task.quantise(values.copy(), block)
        call = f"quantise({n} values, block {block})"
        equal((np.asarray(codes).shape, np.asarray(scales).shape), ((n,), (-(-n // block),)), f"shapes of {call}")
        for at in range(-(-n // block)):
            part = values[at * block : (at + 1) * block]
            scale = max(abs(float(v)) for v in part)
            close(float(scales[at]), scale, 1e-9, f"scale {at} of {call}")
            best = [min(range(16), key=lambda k: (abs(v / scale - LEVELS[k]), k)) for v in part]  # noqa: B023
            equal([int(c) for c in codes[at * block : (at + 1) * block]], best, f"codes of block {at} of {call}")
        expected = np.array([LEVELS[int(c)] * scales[i // block] for i, c in enumerate(codes)])
        close(task.dequantise(codes, scales, block), expected, 1e-9, f"dequantise after {call}")


def check_zeros(task):
    """A block of zeros stays zeros, without warnings of a division."""
    with np.errstate(all="raise"):
        codes, scales = task.quantise(np.array([0.0] * 4 + [1.0, -1.0, 0.0, 0.5]), 4)
        got = np.asarray(task.dequantise(codes, scales, 4))
    expect(bool(np.isfinite(got).all()), "0 / 0 is not a number: a block of zeros needs another divisor",
           "dequantise(quantise([0, 0, 0, 0, 1, ...], 4))", "zeros first", got)
    close(got[:4], np.zeros(4), 0.0, "the first block of it")
    equal(np.asarray(codes)[:4].astype(int).tolist(), [7] * 4, "codes of a block of zeros", "level 7 is 0")


def check_pack(task):
    """Two codes a byte."""
    got = np.asarray(task.pack(np.array([1, 2, 15, 0, 9], dtype=np.uint8)))
    equal(got.astype(int).tolist(), [0x12, 0xF0, 0x90], "pack([1, 2, 15, 0, 9])", "the first code in the high half")
    equal(str(got.dtype), "uint8", "dtype of pack(...)")


def check_bits(task):
    """What the scales cost."""
    close(task.bits_per_value(64, 32), 4.5, 1e-12, "bits_per_value(64, 32)")
    close(task.bits_per_value(64, 8, 256, 32), 4 + 8 / 64 + 32 / 16384, 1e-12, "bits_per_value(64, 8, 256, 32)")
    close(task.bits_per_value(32, 16, 128, 16), 4 + 16 / 32 + 16 / 4096, 1e-12, "bits_per_value(32, 16, 128, 16)",
          "an outer scale is shared by outer_block scales of block values each")
