"""Which of several processes this is, as torchrun says it in the environment. Imports no torch.

Only the first process speaks, locks the out folder and records; the others compute with it.
"""

from __future__ import annotations

import os

from bottega.core.errors import UserError


def rank() -> int:
    """Number of this process among those of the run, from 0."""
    return _number("RANK", 0)


def world_size() -> int:
    """Number of processes of the run."""
    return _number("WORLD_SIZE", 1)


def follows() -> bool:
    """Whether this process only computes for another one."""
    return world_size() > 1 and rank() > 0


def _number(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        raise UserError(f"{name} in the environment is {text!r}, not a number", hint="torchrun sets it: unset it.")
    return int(text)
