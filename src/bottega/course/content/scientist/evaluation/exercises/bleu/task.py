"""BLEU of a corpus (Papineni et al. 2002), with one reference for each sentence and without smoothing."""

import math
from collections import Counter


def bleu(candidates: list[list[str]], references: list[list[str]]) -> float:
    """From 0 to 100. Sentences are lists of words; candidates[i] is held against references[i].

    100 · penalty · (p1 p2 p3 p4)^(1/4); p_n is the share of the candidates' runs of n words that the reference has too,
    each at most as often as there, over all sentences together. penalty = e^(1 − r/c) if c < r, else 1, with c and r the
    words of all candidates and references. 0 if any p_n is 0 or there are no runs of 4.
    """
    raise NotImplementedError
