"""Pack documents into rows of a fixed length.

Documents follow one another; one that does not fit goes on in the next row. All rows are full but perhaps the last. For
each row say its tokens, the position of each token in its piece (starting at 0 for every piece), and which tokens are
trained: all but the first of each piece, as nothing of its own document predicts it.
"""


def pack(documents: list[list[int]], length: int) -> list[tuple[list[int], list[int], list[bool]]]:
    """Rows of (tokens, positions, trained)."""
    raise NotImplementedError
