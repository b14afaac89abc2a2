import numpy as np


def mlp_gradients(
    x: np.ndarray, labels: np.ndarray, w1: np.ndarray, b1: np.ndarray, w2: np.ndarray, b2: np.ndarray
) -> tuple[float, dict[str, np.ndarray]]:
    hidden = np.maximum(0, x @ w1 + b1)
    scores = hidden @ w2 + b2
    scores = scores - scores.max(1, keepdims=True)
    log_p = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    rows = np.arange(len(labels))
    loss = -log_p[rows, labels].mean()
    by_scores = np.exp(log_p)
    by_scores[rows, labels] -= 1
    by_scores /= len(labels)
    by_hidden = by_scores @ w2.T
    by_sum = by_hidden * (hidden > 0)
    return float(loss), {
        "w1": x.T @ by_sum,
        "b1": by_sum.sum(0),
        "w2": hidden.T @ by_scores,
        "b2": by_scores.sum(0),
    }
