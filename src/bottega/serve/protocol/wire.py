"""What every message on the wire obeys: OpenAI's API reference, the part of it that this server keeps.

Every field is either obeyed or refused; none is ignored. A field that OpenAI knows and we
do not is accepted only at the value that means "off". Fields that cannot change the answer
(`user`, `metadata` …) are listed one by one.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

MAX_TOP_LOGPROBS = 20
MAX_INPUTS = 2048


class Wire(BaseModel):
    """Base of what comes in: no unknown fields, no coercion of types, no NaN."""

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )


class Reply(BaseModel):
    """Base of what goes out; only fields that were set are written."""

    model_config = ConfigDict(protected_namespaces=())


def _off(value: Any) -> Any:
    if value:
        raise ValueError("this server does not support it; leave it out")
    return value


Unsupported = Annotated[
    Any, AfterValidator(_off), WithJsonSchema({"enum": [None, False, 0, "", [], {}], "description": "Not supported."})
]
"""A field of OpenAI's that is accepted only when it asks for nothing (null, 0, false, empty)."""


class Harmless(Wire):
    """Fields that cannot change an answer of this server."""

    user: str | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: Literal["auto", "default"] | None = None
    store: Unsupported = None


def _text_or_ids(value: Any) -> Any:
    if not isinstance(value, str) and not (isinstance(value, list) and all(type(item) is int for item in value)):
        raise ValueError("expected a text or a list of token ids")
    return value


TextOrIds = Annotated[str | list[int], BeforeValidator(_text_or_ids, json_schema_input_type=str | list[int])]
"""A text, or its token ids."""


Prompts = TextOrIds | list[TextOrIds]
"""One prompt or several, as clients send them."""


def prompt_list(value: Any) -> Any:
    """One prompt or several → a list of texts or lists of ids; raises ValueError for anything else."""
    if isinstance(value, str) or (isinstance(value, list) and value and all(type(item) is int for item in value)):
        return [value]
    if not isinstance(value, list):
        raise ValueError("expected a text, a list of token ids, or a list of these")
    if not 1 <= len(value) <= MAX_INPUTS:
        raise ValueError(f"expected 1 to {MAX_INPUTS} prompts")
    return value
