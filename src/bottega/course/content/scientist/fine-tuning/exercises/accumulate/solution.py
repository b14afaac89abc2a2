import numpy as np


def accumulate(parts: list[tuple[float, np.ndarray, int]], limit: float) -> tuple[float, np.ndarray]:
    kept = [part for part in parts if part[2] > 0]
    if not kept:
        raise ValueError("nothing is trained")
    total = sum(count for _, _, count in kept)
    loss = sum(mean * count for mean, _, count in kept) / total
    gradient = np.zeros_like(kept[0][1], dtype=float)
    for _, part, count in kept:
        gradient = gradient + part * (count / total)
    norm = float(np.sqrt((gradient**2).sum()))
    return float(loss), gradient * min(1.0, limit / norm) if norm > 0 else gradient
