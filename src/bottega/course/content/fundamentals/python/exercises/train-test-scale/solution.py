import numpy as np


def train_test_scale(X: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    size = round(share * len(X))
    order = np.random.default_rng(seed).permutation(len(X))
    test_rows, train_rows = order[:size], order[size:]
    train, test = X[train_rows], X[test_rows]
    mean, spread = train.mean(axis=0), train.std(axis=0)
    spread = np.where(train.max(axis=0) > train.min(axis=0), spread, 1.0)
    return (train - mean) / spread, (test - mean) / spread, train_rows, test_rows
