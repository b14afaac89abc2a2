import numpy as np


def accumulated(parts: list[tuple[np.ndarray, np.ndarray]]) -> float:
    total = sum(int(trained.sum()) for _, trained in parts)
    return float(sum(losses[trained].sum() / total for losses, trained in parts)) if total else 0.0
