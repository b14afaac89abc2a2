import numpy as np


def fit(winners: np.ndarray, losers: np.ndarray, count: int, steps: int = 3000, rate: float = 0.5) -> np.ndarray:
    rewards = np.zeros(count)
    for _ in range(steps):
        p = 1 / (1 + np.exp(-(rewards[winners] - rewards[losers])))
        slope = np.zeros(count)
        np.add.at(slope, winners, -(1 - p))
        np.add.at(slope, losers, 1 - p)
        rewards -= rate * count * slope / len(winners)
    return rewards - rewards.mean()
