"""From a conversation to ids and labels."""

IGNORED = -100


def ids_and_labels(turns: list[tuple[str, list[int]]], headers: dict[str, list[int]], stop: int) -> tuple[list[int], list[int]]:
    """The ids of a conversation, and a label for each: the id itself where it is trained, IGNORED elsewhere.

    Each turn is written as its role's header, its content, and the stop token. Trained are the contents of the
    assistant's turns, each with the stop token behind it. Labels are not shifted: label i belongs to id i.
    """
    raise NotImplementedError
