import numpy as np


def kmeans_step(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    squared = ((points[:, None, :] - centres[None, :, :]) ** 2).sum(axis=-1)
    labels = squared.argmin(axis=1)
    moved = centres.astype(float)
    for label in range(len(centres)):
        mine = points[labels == label]
        if len(mine) > 0:
            moved[label] = mine.mean(axis=0)
    return labels, moved, float(squared.min(axis=1).sum())
