"""Files mapped into memory, and tensors over their bytes: nothing is read before it is touched.

The mapping is copy-on-write: pages are shared between processes, and writing into a tensor
never changes the file.
"""

from __future__ import annotations

import math
import mmap
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def map_file(path: Path) -> mmap.mmap:
    """The content of `path`, which must not be empty, mapped privately."""
    # Private and writable, so that torch may have it; NORESERVE, so that a file larger than the
    # memory can be mapped on machines that count writable pages in advance.
    flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0)
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)


def tensor_at(content: mmap.mmap, start: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """The tensor whose values lie from byte `start` on; its memory is the mapping's."""
    import torch

    count, item = math.prod(shape), dtype.itemsize
    if not count:
        return torch.empty(shape, dtype=dtype)
    if start % item:
        # Only files of other writers are not aligned; those few tensors are copied.
        part = bytearray(content[start : start + count * item])
        return torch.frombuffer(part, dtype=dtype).reshape(shape)
    return torch.frombuffer(content, dtype=dtype, count=count, offset=start).reshape(shape)
