import numpy as np

LEVELS = np.array([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
])


def quantise(values: np.ndarray, block: int = 64) -> tuple[np.ndarray, np.ndarray]:
    rows = values.reshape(-1, block)
    scales = np.abs(rows).max(1)
    scaled = rows / np.where(scales > 0, scales, 1)[:, None]
    return np.abs(scaled[:, :, None] - LEVELS).argmin(-1).reshape(-1), scales


def dequantise(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    return (LEVELS[codes].reshape(len(scales), -1) * scales[:, None]).reshape(-1)
