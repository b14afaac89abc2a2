"""Multiple choice by likelihood."""


def choose(given: list[list[float]], alone: list[list[float]], texts: list[str], norm: str) -> int:
    """The place of the option that a model prefers; of equal ones the first.

    Args:
        given: ln p of each option's tokens behind the question.
        alone: the same without the question.
        texts: the options' texts.
        norm: "sum"; "bytes", the sum over the bytes of the text in UTF-8; or "question", the sum less that of `alone`.

    Raises ValueError for another norm.
    """
    raise NotImplementedError
