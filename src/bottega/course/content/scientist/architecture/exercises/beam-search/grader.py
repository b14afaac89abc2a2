import itertools
import math
import random

from bottega.course.grading import close, equal, expect


def model(seed, size):
    """A random language: ln p of the next token depends on all before it."""
    def log_probabilities(tokens):
        draw = random.Random(f"{seed} {list(tokens)}")
        raw = [draw.gauss(0, 1.5) for _ in range(size)]
        total = math.log(sum(math.exp(x) for x in raw))
        return [x - total for x in raw]
    return log_probabilities


def reference(log_probabilities, beams, steps):
    alive = [([], 0.0)]
    for _ in range(steps):
        found = [(t + [i], s + lp) for t, s in alive for i, lp in enumerate(log_probabilities(t))]
        found.sort(key=lambda each: -each[1])
        alive = found[:beams]
    return alive[0]


def check_greedy(task):
    """One beam is greedy decoding."""
    for seed in range(20):
        log_probabilities = model(seed, 4)
        tokens = []
        for _ in range(5):
            row = log_probabilities(tokens)
            tokens.append(row.index(max(row)))
        equal(list(task.beam_search(log_probabilities, 1, 5)[0]), tokens, f"beam_search(model {seed}, beams=1, steps=5)")


def check_pruned(task):
    """With 2 beams no more than 2 sequences are extended in a step."""
    asked = []
    inner = model(3, 5)

    def log_probabilities(tokens):
        asked.append(len(tokens))
        return inner(tokens)

    task.beam_search(log_probabilities, 2, 5)
    most = max(asked.count(length) for length in set(asked))
    expect(most <= 2, "more sequences were extended in one step than there are beams", "beam_search(model, beams=2, steps=5)", "at most 2", most)


def check_scores(task):
    """The score is the sum over the whole sequence."""
    for seed in range(20):
        log_probabilities = model(seed, 3)
        tokens, score = task.beam_search(log_probabilities, 3, 4)
        summed = sum(log_probabilities(tokens[:i])[token] for i, token in enumerate(tokens))
        close(score, summed, 1e-9, f"beam_search(model {seed}, beams=3, steps=4)[1]", "it must be the sum of all four")


def check_against_reference(task):
    """The same sequence as a plain beam search, and with enough beams the best of all."""
    for seed in range(30):
        log_probabilities = model(seed, 4)
        for beams in (2, 3):
            expected = reference(log_probabilities, beams, 5)
            equal(list(task.beam_search(log_probabilities, beams, 5)[0]), expected[0], f"beam_search(model {seed}, {beams}, 5)[0]")
    log_probabilities = model(99, 3)
    best = max(itertools.product(range(3), repeat=4), key=lambda s: sum(log_probabilities(s[:i])[t] for i, t in enumerate(s)))
    equal(list(task.beam_search(log_probabilities, 81, 4)[0]), list(best), "beam_search(model, beams=81, steps=4)[0]",
          "81 beams hold every sequence of 4 tokens out of 3: nothing can be missed")
