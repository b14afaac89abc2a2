"""What simple methods reach on the same bytes: byte unigram, byte bigram, and `xz`.

All figures are bits per byte of the held-out bytes (lower is better), so that they stand beside a
model's. *Unigram* and *bigram* are fitted on the training bytes: p(b) = (c(b) + α) / (n + 256 α),
and p(b | a) = (c(a, b) + β p(b)) / (c(a) + β), a bigram backed off to the unigram with the
strength of β unigram draws (a Dirichlet prior: MacKay & Peto 1995). α and β are chosen on the last
tenth of the training bytes with counts from the rest; the counts then come from all of it. The
first byte of a document is predicted from a symbol of its own. *xz* is LZMA2 at preset 9
extreme as a raw stream (no container, no checksum): alone, and primed, which is size(training + held
out) − size(training) with a dictionary that covers both.
"""

from __future__ import annotations

import lzma
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALPHAS = tuple(10.0**power for power in range(-3, 3))
BETAS = tuple(2.0**power for power in range(-4, 13))
START = 256
# Bytes counted at once: bincount wants 8 bytes an item.
CHUNK = 1 << 22
PRIME_BYTES = 8 << 20

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Baselines:
    """Bits per byte of each method over `held_out_bytes`, and how they were fitted."""

    unigram: float
    bigram: float
    xz: float
    xz_primed: float
    held_out_bytes: int
    training_bytes: int
    primed_bytes: int
    """How many of the training bytes, from their end, primed xz."""
    alpha: float
    beta: float

    def as_data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def measure_baselines(
    held_out: Sequence[bytes], training: Sequence[bytes], *, prime_bytes: int = PRIME_BYTES
) -> Baselines:
    """All four baselines on the documents `held_out`, given the documents `training`.

    xz, which takes a second for about 1.3 MB, is primed with at most `prime_bytes` from the
    end of the training text. Raises ValueError if either side has no bytes.
    """
    together, learned = b"".join(held_out), b"".join(training)
    if not together or not learned:
        raise ValueError("baselines need held-out and training bytes")
    prime = learned[max(0, len(learned) - prime_bytes) :]
    # lzma releases the interpreter lock: the three compressions and the counting run side by side.
    with ThreadPoolExecutor(max_workers=3) as pool:
        sizes = [pool.submit(xz_size, text) for text in (prime + together, prime, together)]
        unigram, bigram, alpha, beta = byte_models(held_out, training)
        primed, prime_only, alone = (size.result() for size in sizes)
    bits = 8 / len(together)
    return Baselines(
        unigram=unigram,
        bigram=bigram,
        xz=alone * bits,
        xz_primed=(primed - prime_only) * bits,
        held_out_bytes=len(together),
        training_bytes=len(learned),
        primed_bytes=len(prime),
        alpha=alpha,
        beta=beta,
    )


def xz_size(content: bytes) -> int:
    """Bytes of `content` as raw LZMA2, preset 9 extreme, with a dictionary as large as the content."""
    dictionary = min(max(4096, 1 << (len(content) - 1).bit_length()), 1536 << 20) if content else 4096
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": dictionary}]
    return len(lzma.compress(content, format=lzma.FORMAT_RAW, filters=filters))


def byte_models(held_out: Sequence[bytes], training: Sequence[bytes]) -> tuple[float, float, float, float]:
    """Bits per byte of the unigram and of the bigram on `held_out`, and the α and β they took."""
    whole = pair_counts(training)
    fitted, slice_ = _split(training)
    rest, tuning = pair_counts(fitted), pair_counts(slice_)
    alpha = min(ALPHAS, key=lambda value: unigram_bits(rest, tuning, value))
    beta = min(BETAS, key=lambda value: bigram_bits(rest, tuning, alpha, value))
    target = pair_counts(held_out)
    return unigram_bits(whole, target, alpha), bigram_bits(whole, target, alpha, beta), alpha, beta


def pair_counts(documents: Sequence[bytes]) -> Counts:
    """How often byte b follows a, (257, 256); row 256 counts the first bytes of documents."""
    counts = np.zeros((START + 1) * 256, dtype=np.int64)
    content = np.frombuffer(b"".join(documents), dtype=np.uint8)
    lengths = np.array([len(document) for document in documents if document], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]) if len(lengths) else np.zeros(0, dtype=np.int64)
    before = np.empty(len(content), dtype=np.uint32)
    before[1:] = content[:-1]
    before[starts] = START
    for begin in range(0, len(content), CHUNK):
        pairs = before[begin : begin + CHUNK] * np.uint32(256) + content[begin : begin + CHUNK]
        counts += np.bincount(pairs, minlength=counts.size)
    return counts.reshape(START + 1, 256)


def unigram_bits(model: Counts, target: Counts, alpha: float) -> float:
    """Bits per byte of the bytes counted in `target` under a unigram from the counts `model`."""
    return _bits(target.sum(axis=0), _unigram(model, alpha))


def bigram_bits(model: Counts, target: Counts, alpha: float, beta: float) -> float:
    """Bits per byte of the pairs counted in `target` under a bigram from the counts `model`."""
    prior = _unigram(model, alpha)
    return _bits(target, (model + beta * prior) / (model.sum(axis=1, keepdims=True) + beta))


def _unigram(model: Counts, alpha: float) -> NDArray[np.float64]:
    counts = model.sum(axis=0)
    return (counts + alpha) / (counts.sum() + 256 * alpha)


def _bits(target: NDArray[Any], probabilities: NDArray[np.float64]) -> float:
    seen = target > 0
    total = int(target.sum())
    return float(-(target[seen] * np.log2(probabilities[seen])).sum() / total) if total else math.nan


def _split(documents: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
    """The first nine tenths and the last tenth of the bytes; a document across the border is cut there."""
    total = sum(len(document) for document in documents)
    border = total - max(1, total // 10)
    first: list[bytes] = []
    last: list[bytes] = []
    seen = 0
    for document in documents:
        cut = min(max(0, border - seen), len(document))
        first.append(document[:cut])
        last.append(document[cut:])
        seen += len(document)
    return first, last
