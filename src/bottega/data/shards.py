"""Writing token shards: flat .npy arrays that `np.load(mmap_mode="r")` opens without reading.

The arrays are written through as they grow; the header, in which NumPy leaves room for
the final length, is rewritten at the end. So memory does not depend on the shard's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from bottega.data.spec import Shard


class ArrayFile:
    """A one-dimensional .npy file that grows."""

    def __init__(self, path: Path, dtype: npt.DTypeLike) -> None:
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.items = 0
        self._file: BinaryIO = path.open("wb")
        self._write_header()
        self._data_start = self._file.tell()

    def append(self, values: npt.ArrayLike) -> None:
        """Add values at the end."""
        array = np.ascontiguousarray(values, dtype=self.dtype)
        self._file.write(array.tobytes())
        self.items += len(array)

    def close(self) -> None:
        """Write the final length into the header and close."""
        self._file.seek(0)
        self._write_header()
        if self._file.tell() != self._data_start:
            raise AssertionError("the .npy header changed its size")
        self._file.close()

    def _write_header(self) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": (self.items,)}
        np.lib.format.write_array_header_1_0(cast(Any, self._file), header)


class ShardWriter:
    """Writes documents of token ids into numbered shards below `folder`.

    Ids are stored as uint16 where the vocabulary allows it, else as uint32. `chat` says that each
    document has a mask (every form but text).
    """

    def __init__(self, folder: Path, *, vocab_size: int, chat: bool, shard_tokens: int) -> None:
        self.folder, self.chat, self.shard_tokens = folder, chat, shard_tokens
        self.dtype = np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32)
        self.tokens = self.documents = self.trained_tokens = self.longest = 0
        self.shards: list[dict[str, Any]] = []
        self._open: tuple[ArrayFile, ArrayFile, ArrayFile | None] | None = None

    def add(self, ids: Sequence[int], mask: Sequence[bool] | None = None) -> None:
        """One document; `mask` is True on the tokens to train on (none for text)."""
        if self._open is None:
            self._open = self._begin()
        tokens, offsets, masks = self._open
        tokens.append(ids)
        offsets.append([tokens.items])
        if masks is not None:
            if mask is None or len(mask) != len(ids):
                raise ValueError("a document of this form needs a mask as long as its ids")
            masks.append(mask)
        self.tokens += len(ids)
        self.documents += 1
        self.trained_tokens += len(ids) if mask is None else sum(mask)
        self.longest = max(self.longest, len(ids))
        if tokens.items >= self.shard_tokens:
            self._end()

    def close(self) -> None:
        """Complete the last shard."""
        if self._open is not None:
            self._end()

    def _begin(self) -> tuple[ArrayFile, ArrayFile, ArrayFile | None]:
        shard = Shard.at(self.folder, len(self.shards), chat=self.chat)
        offsets = ArrayFile(shard.offsets, np.int64)
        offsets.append([0])
        masks = ArrayFile(shard.mask, np.uint8) if shard.mask else None
        return ArrayFile(shard.tokens, self.dtype), offsets, masks

    def _end(self) -> None:
        assert self._open is not None
        tokens, offsets, _ = self._open
        for array in self._open:
            if array is not None:
                array.close()
        shard = Shard.at(
            self.folder, len(self.shards), chat=self.chat, tokens=tokens.items, documents=offsets.items - 1
        )
        files = {path.name: path.stat().st_size for path, _, _ in shard.files()}
        self.shards.append({"tokens": tokens.items, "documents": offsets.items - 1, "files": files})
        self._open = None
