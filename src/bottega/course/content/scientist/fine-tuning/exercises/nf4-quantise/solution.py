import numpy as np

LEVELS = np.array([
    -1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0,
])


def quantise(values: np.ndarray, block: int = 64) -> tuple[np.ndarray, np.ndarray]:
    starts = range(0, len(values), block)
    scales = np.array([np.abs(values[start : start + block]).max() for start in starts], dtype=np.float64)
    divisors = np.where(scales == 0, 1.0, scales)
    scaled = values / np.repeat(divisors, block)[: len(values)]
    distances = np.abs(scaled[:, None] - LEVELS[None, :])
    return distances.argmin(1).astype(np.uint8), scales


def dequantise(codes: np.ndarray, scales: np.ndarray, block: int = 64) -> np.ndarray:
    return LEVELS[codes] * np.repeat(scales, block)[: len(codes)]


def pack(codes: np.ndarray) -> np.ndarray:
    even = np.append(codes, 0) if len(codes) % 2 else codes
    even = even.astype(np.uint8)
    return (even[::2] << 4) | even[1::2]


def bits_per_value(block: int, scale_bits: int, outer_block: int = 0, outer_bits: int = 0) -> float:
    found = 4 + scale_bits / block
    if outer_block:
        found += outer_bits / (block * outer_block)
    return found
