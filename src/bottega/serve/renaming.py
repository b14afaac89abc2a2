"""Refusals of a request that came in another API's words: what was wrong, by the names that the client knows."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence

from pydantic import ValidationError

from bottega.core.errors import UserError
from bottega.serve.failures import ApiError, from_validation
from bottega.serve.prompts import refusal

Names = Sequence[tuple[re.Pattern[str], str]]
"""Patterns of what this server's first API calls a field, and what replaces them."""


def renamed(error: ApiError, names: Names) -> ApiError:
    """The same refusal in other words."""
    message, param = error.message, error.param
    for pattern, name in names:
        message, param = pattern.sub(name, message), pattern.sub(name, param) if param else param
    return ApiError(error.status, message, kind=error.kind, param=param, code=error.code, headers=error.headers)


@contextlib.contextmanager
def in_words_of(names: Names) -> Iterator[None]:
    """Every refusal inside is an ApiError by those names, that of the request which is made of the client's too."""
    try:
        yield
    except ValidationError as error:
        raise renamed(from_validation(error.errors(), {}), names) from None
    except UserError as error:
        raise renamed(refusal(error), names) from None
    except ApiError as error:
        raise renamed(error, names) from None
