"""Four bits a weight: NF4 in blocks of 64.

A block's scale is its greatest magnitude. Each value, divided by the scale, becomes the nearest of the sixteen LEVELS; the
lower one if it lies in the middle. The last block may be short. A block of zeros has scale 0 and the code of 0.
"""

import numpy as np

LEVELS = np.array([
    -1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0,
])


def quantise(values: np.ndarray, block: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """(n,) floats -> n codes 0 to 15 (uint8, one each) and one scale for each block (float64)."""
    raise NotImplementedError


def dequantise(codes: np.ndarray, scales: np.ndarray, block: int = 64) -> np.ndarray:
    """Back to (n,) float64."""
    raise NotImplementedError


def pack(codes: np.ndarray) -> np.ndarray:
    """Two codes a byte, the first in the high half; an odd one is filled up with 0. -> (ceil(n / 2),) uint8."""
    raise NotImplementedError


def bits_per_value(block: int, scale_bits: int, outer_block: int = 0, outer_bits: int = 0) -> float:
    """4 bits and the value's share of its scale, of `scale_bits`; and, if there is an outer block, of the scale's scale."""
    raise NotImplementedError
