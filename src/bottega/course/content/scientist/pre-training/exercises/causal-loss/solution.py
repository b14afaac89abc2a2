import numpy as np


def causal_loss(logits: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> float:
    scores, targets, kept = logits[:-1], tokens[1:], mask[1:]
    scores = scores - scores.max(-1, keepdims=True)
    log_probabilities = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    losses = -log_probabilities[np.arange(len(targets)), targets]
    return float((losses * kept).sum() / kept.sum())
