"""The wire format of protocol buffers, as much of it as a SentencePiece file needs.

A message is a run of fields, each a key (number and wire type, as one varint) and a value:
a varint, four or eight bytes, or a length and that many bytes.
Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_VARINT_BYTES = 10


class WireError(ValueError):
    """The bytes are no message."""


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) in the order of the file; varints are integers, all else is a view of the bytes.

    Nothing is copied, and no length is believed that the message does not have. Raises WireError.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise WireError(f"byte {at}: there is no field 0")
        if kind == VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == BYTES:
            size, at = _varint(message, at)
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
        else:
            raise WireError(f"byte {at}: unknown wire type {kind}")
        if size > len(message) - at:
            raise WireError(f"byte {at}: a field of {size} bytes, but {len(message) - at} are left")
        yield number, message[at : at + size]
        at += size


def float_of(value: int | memoryview) -> float:
    """The value of a `float` field; raises WireError if it is none."""
    if isinstance(value, int) or len(value) != 4:
        raise WireError("a float is not four bytes")
    return struct.unpack("<f", value)[0]


def integer_of(value: int | memoryview) -> int:
    """The value of an `int32`, `bool` or `enum` field, sign and all; raises WireError if it is none."""
    if not isinstance(value, int):
        raise WireError("an integer is no varint")
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


def bytes_of(value: int | memoryview) -> memoryview:
    """The value of a `bytes`, `string` or message field; raises WireError if it is none."""
    if isinstance(value, int):
        raise WireError("a text is a varint")
    return value


def text_of(value: int | memoryview) -> str:
    """The value of a `string` field; raises WireError if it is none or no UTF-8."""
    try:
        return str(bytes_of(value), "utf-8")
    except UnicodeDecodeError as error:
        raise WireError(f"a text is not UTF-8: {error}") from None


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(message[at : at + MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise WireError(f"byte {at}: a number does not end")
