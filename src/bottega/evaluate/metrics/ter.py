"""TER of a corpus: edits per word of the reference, where moving a run of words is one edit. Imports no torch.

Source: Snover et al. 2006 (AMTA); the greedy search for moves, its order and its bounds are Tercom's, with insertion
before the place as in sacrebleu, whose signature `case:lc|tok:tercom|norm:no|punct:yes|asian:no` this equals.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

LONGEST_MOVE, FARTHEST_MOVE = 10, 50  # words
MOST_MOVES = 1000  # that are tried for one sentence
BEAM = 25  # columns on either side of the diagonal
Rows = list[list[float]]


def ter_statistics(references: Sequence[str], prediction: str) -> list[float]:
    """What an item adds to the corpus: edits to the nearest reference, and the mean length of the references."""
    words, golds = prediction.lower().split(), [reference.lower().split() for reference in references]
    return [min(_edits(words, gold) for gold in golds), sum(map(len, golds)) / len(golds)]


def ter_score(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """TER in percent of summed statistics (…, 2); 100 where words stand against none."""
    edits, length = sums[..., 0], sums[..., 1]
    return 100 * np.divide(edits, length, out=np.asarray(edits > 0, np.float64), where=length > 0)


def _edits(words: list[str], gold: list[str]) -> int:
    """Moves, taken as long as one of them saves an edit, and the edits that are left."""
    if not gold:
        return len(words)
    moves = tried = 0
    rows = _distances(words, gold, [])
    while True:
        best, tried = _best_move(words, gold, rows, tried)
        if best is None or tried >= MOST_MOVES:
            return moves + int(rows[-1][-1])
        moves, words = moves + 1, best
        rows = _distances(words, gold, [])


def _best_move(words: list[str], gold: list[str], rows: Rows, tried: int) -> tuple[list[str] | None, int]:
    """`words` after the move that saves most (then: longest, first from, first to), or None if none saves anything."""
    aligned, wrong_words, wrong_gold = _alignment(words, gold, rows)
    best_rank, best = (0.0, 0, 0, 0), None
    for start, place, size in _common_runs(words, gold):
        # Move only what is wrong to where something is wrong, and not within itself.
        if not any(wrong_words[start : start + size]) or not any(wrong_gold[place : place + size]):
            continue
        if start <= aligned[place] < start + size:
            continue
        block, rest = words[start : start + size], words[:start] + words[start + size :]
        targets = [aligned[at] + 1 if at >= 0 else 0 for at in range(place - 1, min(place + size, len(gold)))]
        for target, before in zip(targets, [-1, *targets], strict=False):
            if target == before:
                continue
            at = target - size if target > start + size else target
            moved = rest[:at] + block + rest[at:]
            changed = _distances(moved, gold, rows[: min(start, at) + 1])
            rank = (rows[-1][-1] - changed[-1][-1], size, -start, -target)
            tried += 1
            if rank[0] > 0 and rank > best_rank:
                best_rank, best = rank, moved
        if tried >= MOST_MOVES:
            break
    return best, tried


def _common_runs(words: Sequence[str], gold: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    """(start in `words`, start in `gold`, size) of every run that both have."""
    for start in range(len(words)):
        for place in range(max(0, start - FARTHEST_MOVE), min(len(gold), start + FARTHEST_MOVE + 1)):
            for size in range(min(LONGEST_MOVE, len(words) - start, len(gold) - place)):
                if words[start + size] != gold[place + size]:
                    break
                yield start, place, size + 1


def _distances(words: Sequence[str], gold: Sequence[str], known: Rows) -> Rows:
    """Edit distances of each beginning of `words` to each of `gold`, near the diagonal; `known` are the first rows."""
    width = len(gold) + 1
    rows = known or [[float(column) for column in range(width)]]
    slope = len(gold) / len(words) if words else 1.0
    beam = math.ceil(slope / 2 + BEAM) if slope / 2 > BEAM else BEAM
    for number in range(len(rows), len(words) + 1):
        word, above, row = words[number - 1], rows[-1], [math.inf] * width
        middle = math.floor(number * slope)
        stop = width if number == len(words) else min(width, middle + beam)
        left = math.inf
        for column in range(max(0, middle - beam), stop):
            cost = above[column] + 1
            if column:
                cost = min(above[column - 1] + (word != gold[column - 1]), cost, left + 1)
            row[column] = left = cost
        rows.append(row)
    return rows


def _alignment(words: Sequence[str], gold: Sequence[str], rows: Rows) -> tuple[list[int], list[bool], list[bool]]:
    """For each word of `gold` the place in `words` that it stands at (−1 before all), and the wrong ones of both.

    Of equal ways, keeping or replacing goes first, then dropping a word.
    """
    row, column = len(words), len(gold)
    aligned, wrong_words, wrong_gold = [0] * column, [True] * row, [True] * column
    while row or column:
        cost = rows[row][column]
        differs = not (row and column) or words[row - 1] != gold[column - 1]
        if row and column and rows[row - 1][column - 1] + differs == cost:
            row, column = row - 1, column - 1
            aligned[column] = row
            wrong_words[row] = wrong_gold[column] = differs
        elif row and rows[row - 1][column] + 1 == cost:
            row -= 1
        else:
            column -= 1
            aligned[column] = row - 1
    return aligned, wrong_words, wrong_gold
