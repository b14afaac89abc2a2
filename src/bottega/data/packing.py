"""Best-fit-decreasing packing of pieces into rows (Ding et al. 2024, "Fewer Truncations Improve
Language Modeling"; Johnson 1974 for the bound of the heuristic).

Whole pieces are put together so that rows are nearly full; nothing is cropped. Packing all
pieces of a large corpus at once would be slow and would put all long pieces first, so it is
done in blocks of pieces that were shuffled before.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np

BLOCK_PIECES = 16_384


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of `lengths` grouped into rows of at most `capacity`.

    The longest piece first, each into the row with the least room that still holds it.
    Raises ValueError if a length is not in 1..capacity.
    """
    rows: list[list[int]] = []
    room_of: dict[int, list[int]] = {}  # room left → rows with that room
    rooms: list[int] = []  # the keys of room_of, sorted
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        if not 0 < length <= capacity:
            raise ValueError(f"a piece of {length} tokens does not fit into rows of {capacity}")
        at = bisect_left(rooms, length)
        if at < len(rooms):
            room = rooms[at]
            row = room_of[room].pop()
            if not room_of[room]:
                del room_of[room], rooms[at]
        else:
            room, row = capacity, len(rows)
            rows.append([])
        rows[row].append(index)
        left = room - length
        if left:
            if left not in room_of:
                room_of[left] = []
                insort(rooms, left)
            room_of[left].append(row)
    return rows


def pack(lengths: np.ndarray, capacity: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pack pieces of the given lengths (int64, (n,)) in shuffled blocks.

    Returns (order, starts): row r holds the pieces order[starts[r] : starts[r + 1]].
    """
    shuffled = np.random.default_rng([seed, 0]).permutation(len(lengths))
    order = np.empty(len(lengths), np.int64)
    starts = [0]
    for begin in range(0, len(lengths), BLOCK_PIECES):
        block = shuffled[begin : begin + BLOCK_PIECES]
        for row in best_fit(lengths[block].tolist(), capacity):
            end = starts[-1] + len(row)
            order[starts[-1] : end] = block[row]
            starts.append(end)
    return order, np.asarray(starts, np.int64)
