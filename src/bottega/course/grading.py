"""What graders compare with: each function raises `Wrong` with the call, what was expected, and what came.

A grader is a module of functions `check_*(task)` that take the learner's module; the first line of each docstring says
what is checked. It draws its cases with a seed, and compares with an oracle. Arrays are of NumPy or of torch; neither
is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

LONGEST = 400  # characters of a value that are shown


class Wrong(Exception):
    """What a check found: a smallest counter-example, in words."""

    def __init__(self, message: str, call: str = "", expected: str = "", got: str = "") -> None:
        super().__init__(message)
        self.message, self.call, self.expected, self.got = message, call, expected, got


def equal(got: Any, expected: Any, call: str = "", why: str = "") -> None:
    """`got` is exactly `expected`: same kind, same shape, same values; NaN is NaN.

    Args:
        got: what the learner's code returned.
        expected: what is right.
        call: how it was called, as a learner would write it.
        why: what is wrong if it differs, in words.
    """
    difference = _difference(got, expected, None)
    if difference is not None:
        raise Wrong(_sentence(why, difference), call, show(expected), show(got))


def close(got: Any, expected: Any, tolerance: float = 1e-6, call: str = "", why: str = "") -> None:
    """`got` is `expected` to `tolerance`, a share of it where it is larger than 1.

    That is |got - expected| ≤ tolerance·max(1, |expected|), entry by entry; the other arguments are those of `equal`.
    """
    difference = _difference(got, expected, tolerance)
    if difference is not None:
        raise Wrong(_sentence(why, difference), call, show(expected), show(got))


def expect(condition: Any, message: str, call: str = "", expected: Any = None, got: Any = None) -> None:
    """`condition` holds; `message` says what does not where it does not."""
    if not condition:
        shown = ["" if value is None else show(value) for value in (expected, got)]
        raise Wrong(message, call, *shown)


def raises(
    error: type[Exception] | tuple[type[Exception], ...],
    function: Callable[..., Any],
    *arguments: Any,
    call: str = "",
    why: str = "",
    **settings: Any,
) -> None:
    """`function(*arguments, **settings)` raises `error`."""
    names = " or ".join(each.__name__ for each in (error if isinstance(error, tuple) else (error,)))
    try:
        got = function(*arguments, **settings)
    except error:
        return
    except NotImplementedError:
        raise
    except Exception as other:
        text = f"{type(other).__name__}: {other}"
        raise Wrong(_sentence(why, f"it raises {type(other).__name__}, not {names}"), call, names, text) from None
    raise Wrong(_sentence(why, f"it raises no {names}"), call, names, show(got))


def show(value: Any) -> str:
    """A value as a learner can read it: rounded, and not endless."""
    text = _text(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 20].rstrip()} … ({len(text):,} characters)"


def _text(value: Any) -> str:
    if is_array(value):
        import numpy

        array = _numpy(value)
        digits = {"precision": 6, "suppress_small": True, "threshold": 40, "edgeitems": 3}
        body = numpy.array2string(array, separator=", ", **digits)
        return body if array.ndim == 0 else f"{body} (shape {tuple(array.shape)})"
    if isinstance(value, float):
        return f"{value:.7g}"
    if type(value) is list:
        return f"[{', '.join(map(_text, value))}]"
    if type(value) is tuple:
        return f"({', '.join(map(_text, value))}{',' if len(value) == 1 else ''})"
    if type(value) is dict:
        return f"{{{', '.join(f'{_text(key)}: {_text(each)}' for key, each in value.items())}}}"
    return repr(value)


def is_array(value: Any) -> bool:
    """Whether it is an array of NumPy or torch, or a number of theirs."""
    return hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "ndim")


def _numpy(value: Any) -> Any:
    import numpy

    if hasattr(value, "detach"):
        value = value.detach().cpu()
        return value.float().numpy() if "bfloat16" in str(value.dtype) else value.numpy()
    return numpy.asarray(value)


def _sentence(why: str, difference: str) -> str:
    return f"{why} ({difference})" if why and difference else why or difference


def _difference(got: Any, expected: Any, tolerance: float | None, at: str = "") -> str | None:
    """In words where the two differ, None where they do not."""
    if is_array(expected) or is_array(got):
        return _array_difference(got, expected, tolerance, at)
    place = f" at {at}" if at else ""
    if isinstance(expected, Mapping) and isinstance(got, Mapping):
        if set(got) != set(expected):
            return f"the keys{place} are {show(list(got))}, not {show(list(expected))}"
        parts = [(f"{at}[{key!r}]", got[key], expected[key]) for key in expected]
        return _first(parts, tolerance)
    if _is_sequence(expected) and _is_sequence(got):
        if tolerance is None and type(got) is not type(expected):
            return f"a {type(got).__name__}{place}, not a {type(expected).__name__}"
        if len(got) != len(expected):
            return f"{len(got)} entries{place}, not {len(expected)}"
        return _first([(f"{at}[{index}]", *pair) for index, pair in enumerate(zip(got, expected))], tolerance)  # noqa: B905 (same length)
    if not _is_number(expected) or not _is_number(got):
        same = type(got) is type(expected) if isinstance(got, bool) or isinstance(expected, bool) else True
        if not (same and bool(got == expected)):
            return f"{show(got)}{place}, not {show(expected)}" if at else _kinds(got, expected)
        return None
    return None if _near(got, expected, tolerance) else f"{show(got)}{place}, not {show(expected)}" if at else ""


def _kinds(got: Any, expected: Any) -> str:
    """Said where the kinds differ; two values of a kind speak for themselves."""
    if got is None:
        return "nothing is returned"
    kinds = type(got).__name__, type(expected).__name__
    return "" if kinds[0] == kinds[1] else f"a {kinds[0]}, not a {kinds[1]}"


def _first(parts: list[tuple[str, Any, Any]], tolerance: float | None) -> str | None:
    found = (_difference(got, expected, tolerance, at) for at, got, expected in parts)
    return next((difference for difference in found if difference is not None), None)


def _array_difference(got: Any, expected: Any, tolerance: float | None, at: str) -> str | None:
    import numpy

    place = f" at {at}" if at else ""
    if not (is_array(got) or _is_number(got) or isinstance(got, bool)):
        return "nothing is returned" if got is None else f"a {type(got).__name__}{place}, not an array"
    ours, theirs = _numpy(expected), _numpy(got)
    if ours.shape != theirs.shape:
        return f"the shape{place} is {theirs.shape}, not {ours.shape}"
    if not numpy.issubdtype(theirs.dtype, numpy.number) or not numpy.issubdtype(ours.dtype, numpy.number):
        unequal = numpy.asarray(theirs != ours)
    elif tolerance is None:
        unequal = ~((theirs == ours) | (numpy.isnan(theirs) & numpy.isnan(ours)))
    else:
        room = numpy.nan_to_num(tolerance * numpy.maximum(1, numpy.abs(ours)), nan=0.0, posinf=0.0)
        with numpy.errstate(all="ignore"):
            unequal = ~(
                (numpy.abs(theirs - ours) <= room) | (theirs == ours) | (numpy.isnan(theirs) & numpy.isnan(ours))
            )
    if not unequal.any():
        return None
    index = tuple(int(i) for i in numpy.argwhere(unequal)[0])
    count = int(unequal.sum())
    where = f"at {at}{list(index) if index else ''}".rstrip()
    many = f"{count} of {unequal.size} entries differ, the first " if unequal.size > 1 else ""
    return f"{many}{where}: {show(theirs[index].item())}, not {show(ours[index].item())}".removeprefix("at: ")


def _near(got: Any, expected: Any, tolerance: float | None) -> bool:
    if got == expected or (got != got and expected != expected):  # NaN
        return True
    if tolerance is None or not math.isfinite(abs(expected)):
        return False
    return abs(got - expected) <= tolerance * max(1.0, abs(expected))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | complex) and not isinstance(value, bool)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
