"""Labels for fine-tuning: only what the assistant says is trained, with the token that ends its turn.

A conversation is a list of turns (role, tokens). Each turn is written as: the role's mark, its tokens, and, behind a turn
of the assistant, the token END. The marks are SYSTEM, USER, ASSISTANT. IGNORE as a label means: not trained.

labels[t] belongs to input_ids[t] itself; the loss shifts them later. Do not shift here.
"""

SYSTEM, USER, ASSISTANT, END, PAD, IGNORE = 1, 2, 3, 4, 4, -100
MARKS = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}


def encode(turns: list[tuple[str, list[int]]]) -> tuple[list[int], list[int]]:
    """input_ids and labels of one conversation. Raises ValueError for an unknown role, or if nothing is trained."""
    raise NotImplementedError


def batch(rows: list[tuple[list[int], list[int]]], length: int) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    """input_ids, labels and attention masks (1: a token, 0: padding) of rows of exactly `length`.

    What is too long is cut at its end; what is short is filled up on the right with PAD, which is not trained and not
    attended to. Rows of which no trained label is left after the cut are left out. PAD and END are the same number here.
    """
    raise NotImplementedError
