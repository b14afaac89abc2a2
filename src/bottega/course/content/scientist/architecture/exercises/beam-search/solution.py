from collections.abc import Callable, Sequence


def beam_search(
    log_probabilities: Callable[[Sequence[int]], Sequence[float]], beams: int, steps: int
) -> tuple[list[int], float]:
    alive: list[tuple[list[int], float]] = [([], 0.0)]
    for _ in range(steps):
        candidates = []
        for tokens, total in alive:
            for token, log_probability in enumerate(log_probabilities(tokens)):
                candidates.append(([*tokens, token], total + log_probability))
        alive = sorted(candidates, key=lambda each: -each[1])[:beams]
    return alive[0]
