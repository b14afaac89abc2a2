import lzma
import math
from collections import Counter

import numpy as np
import pytest

from bottega.evaluate.baselines import (
    ALPHAS,
    BETAS,
    START,
    bigram_bits,
    byte_models,
    measure_baselines,
    pair_counts,
    unigram_bits,
    xz_size,
)

TRAINING = [b"the cat sat on the mat. ", b"", b"a cat is not a dog. " * 3, "Öl und Äther".encode()]
HELD_OUT = [b"the dog sat. ", b"\x00\xff", b"", b"a mat"]


def brute_bigram(training: list[bytes], held_out: list[bytes], alpha: float, beta: float) -> tuple[float, float]:
    unigram = Counter(byte for text in training for byte in text)
    pairs = Counter(pair for text in training for pair in zip([START, *text], text, strict=False))
    firsts = Counter(before for text in training for before, _ in zip([START, *text], text, strict=False))
    total, one, two = sum(unigram.values()), 0.0, 0.0
    for text in held_out:
        for before, byte in zip([START, *text], text, strict=False):
            p = (unigram[byte] + alpha) / (total + 256 * alpha)
            one -= math.log2(p)
            two -= math.log2((pairs[before, byte] + beta * p) / (firsts[before] + beta))
    count = sum(map(len, held_out))
    return one / count, two / count


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.01, 32.0), (100.0, 0.0625)])
def test_byte_models_equal_brute_force(alpha: float, beta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bottega.evaluate.baselines.CHUNK", 7)
    model, target = pair_counts(TRAINING), pair_counts(HELD_OUT)
    expected = brute_bigram(TRAINING, HELD_OUT, alpha, beta)
    assert unigram_bits(model, target, alpha) == pytest.approx(expected[0], rel=1e-12)
    assert bigram_bits(model, target, alpha, beta) == pytest.approx(expected[1], rel=1e-12)


def test_probabilities_of_all_bytes_sum_to_one() -> None:
    model = pair_counts(TRAINING)
    for row in (ord("a"), 7, START):
        each = []
        for byte in range(256):
            target = np.zeros_like(model)
            target[row, byte] = 1
            each.append(2 ** -bigram_bits(model, target, 0.1, 3.0))
        assert sum(each) == pytest.approx(1.0)


def test_smoothing_is_the_best_of_the_grid_on_the_last_tenth() -> None:
    training = [bytes(np.random.default_rng(0).choice(list(b"abcde   "), size=3000).tolist()) * 2]
    border = 6000 - 600
    fitted, tuning = [training[0][:border]], [training[0][border:]]
    *_, alpha, beta = byte_models(HELD_OUT, training)
    # The cut makes a start of the slice, for brute force as for the model.
    unigrams = {a: brute_bigram(fitted, tuning, a, 1.0)[0] for a in ALPHAS}
    assert alpha == min(ALPHAS, key=lambda a: unigrams[a])
    bigrams = {b: brute_bigram(fitted, tuning, alpha, b)[1] for b in BETAS}
    assert beta == min(BETAS, key=lambda b: bigrams[b])


def test_xz_is_what_lzma_says() -> None:
    generator = np.random.default_rng(0)
    held = b"".join(b"line %d of the text\n" % generator.integers(1000) for _ in range(300))
    training = b"".join(b"line %d of the text\n" % generator.integers(1000) for _ in range(3000))
    result = measure_baselines([held[:1000], held[1000:]], [training])
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 17}]

    def size(content: bytes) -> int:
        return len(lzma.compress(content, format=lzma.FORMAT_RAW, filters=filters))

    assert result.xz == pytest.approx(8 * size(held) / len(held))
    assert result.xz_primed == pytest.approx(8 * (size(training + held) - size(training)) / len(held))
    assert result.xz_primed < result.xz
    assert (result.held_out_bytes, result.training_bytes) == (len(held), len(training))


def test_priming_reaches_over_the_whole_training_text() -> None:
    noise = np.random.default_rng(0).bytes(600_000)
    # What is held out stood at the very beginning: only a dictionary of full size finds it.
    primed = xz_size(noise + noise[:20_000]) - xz_size(noise)
    assert primed < 2000


def test_priming_is_bounded_from_the_end() -> None:
    noise = np.random.default_rng(0).bytes(50_000)
    seen = measure_baselines([noise[-1000:]], [noise], prime_bytes=2000)
    lost = measure_baselines([noise[:1000]], [noise], prime_bytes=2000)
    assert seen.primed_bytes == 2000 and seen.xz_primed < 1 < 7.5 < lost.xz_primed


def test_nothing_to_measure_is_an_error() -> None:
    with pytest.raises(ValueError, match="need held-out and training"):
        measure_baselines([b""], [b"x"])
