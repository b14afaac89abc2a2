"""Find the bug: beam search.

This is the search of a well-known notebook, in a few lines. It is asked for 2 beams, and yet it becomes slower and
slower: nothing is ever pruned. And its scores are not what they should be. Repair both.
"""

from collections.abc import Callable, Sequence


def beam_search(
    log_probabilities: Callable[[Sequence[int]], Sequence[float]], beams: int, steps: int
) -> tuple[list[int], float]:
    """The best sequence of `steps` tokens that the search finds, and the sum of its log-probabilities.

    `log_probabilities(tokens)` gives ln p of each possible next token after `tokens`. Of equal sums take the sequence
    that was found first.
    """
    alive: list[tuple[list[int], float]] = [([], 0.0)]
    for _ in range(steps):
        candidates = []
        for tokens, total in alive:
            for token, log_probability in enumerate(log_probabilities(tokens)):
                candidates.append(([*tokens, token], log_probability))
        alive = candidates
    return max(alive, key=lambda each: each[1])
