"""What passed before and is the same now: kept by the hash of everything that decides it."""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Iterable
from pathlib import Path

from bottega.core.atomic import write_json
from bottega.core.hashing import digest_data, digest_file
from bottega.course.library import CONTENT

VERSION = 1
PACKAGE = Path(__file__).resolve().parents[2]
_OF_THE_LIBRARY = re.compile(r"^\s*(?:from|import) bottega(?!\.course\.grading\b)", re.MULTILINE)


class Passed:
    """The hashes of what passed, in a file of the course's folder of state."""

    def __init__(self, path: Path, *, forget: bool = False) -> None:
        self.path = path
        self._known: set[str] = set()
        if not forget:
            with contextlib.suppress(OSError, ValueError, TypeError):
                self._known = set(json.loads(path.read_text("utf-8")))

    def holds(self, key: str) -> bool:
        """Whether this passed before."""
        return key in self._known

    def add(self, key: str) -> None:
        """Remember that this passed; written at once, as what follows may be stopped."""
        self._known.add(key)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, sorted(self._known))


def key_of(what: str, files: Iterable[Path], *, library: bool | None = None) -> str:
    """What decides a check: its name, its files, the course's own code, and the library where the files import it.

    Args:
        what: the check.
        files: what it is about; those that are not there count as absent.
        library: whether the library's code counts; None looks for imports of it.
    """
    paths = sorted(path for path in files if path.is_file())
    if library is None:
        library = any(_OF_THE_LIBRARY.search(path.read_text("utf-8")) for path in paths if path.suffix == ".py")
    own = [digest_file(path) for path in sorted((PACKAGE / "course").rglob("gra*.py"))]
    hashes = {str(path): digest_file(path) for path in paths}
    return digest_data([VERSION, what, hashes, own, library_digest() if library else ""])


@functools.cache
def library_digest() -> str:
    """The hash of all code of the package, without the course's content."""
    files = [path for path in sorted(PACKAGE.rglob("*.py")) if not path.is_relative_to(CONTENT)]
    return digest_data([[str(path.relative_to(PACKAGE)), digest_file(path)] for path in files])
