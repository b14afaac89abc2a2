"""What was computed before: an append-only file of answers for each model, so that nothing is computed twice.

A line is written as soon as an answer is there, so a run that was killed goes on where it stopped. The key is a hash of
the task and its version, the tokens asked, and how they are decoded; the file is of one model in one precision.
"""

from __future__ import annotations

import json
from array import array
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

from bottega.core.append import open_lines
from bottega.core.errors import UserError
from bottega.evaluate.harness.requests import Request, Score

FORMAT = 1  # of keys and answers: raised where a change of ours would give other answers under the same key
Answer = tuple[float, bool] | str
"""A log-likelihood with whether it is what the model would have said, or a generated text."""


class Store:
    """The answers of one model. With `folder` None nothing is kept."""

    def __init__(self, folder: Path | None, model_hash: str) -> None:
        self._answers: dict[str, Answer] = {}
        self.hits = 0
        self._file: BinaryIO | None = None
        if folder is None:
            return
        path = folder / f"{model_hash[:32]}.jsonl"
        try:
            self._file = open_lines(path)
            self._read(path)
        except OSError as error:
            hint = "Give another folder with --store, or keep nothing with --no-reuse."
            raise UserError(f"answers cannot be kept in {folder}: {error.strerror}", hint=hint) from None

    def get(self, key: str) -> Answer | None:
        """The answer that was kept under `key`."""
        return self._answers.get(key)

    def put(self, key: str, answer: Answer) -> None:
        """Keep an answer; it is in the file when this returns, also if the process is killed then."""
        self._answers[key] = answer
        if self._file is not None:
            self._file.write(json.dumps([key, answer]).encode() + b"\n")

    def close(self) -> None:
        """No more will come."""
        if self._file is not None:
            self._file.close()

    def _read(self, path: Path) -> None:
        """Read what is there; a damaged line, or one that was cut off, counts as not written."""
        for line in path.open("rb"):
            try:
                row = json.loads(line)
            except ValueError:
                continue
            match row:  # anything else is no answer, whoever wrote it
                case [str(key), str(answer)]:
                    self._answers[key] = answer
                case [str(key), [int() | float() as score, bool(greedy)]]:
                    self._answers[key] = (float(score), greedy)
                case _:
                    pass


def key_of(task: str, version: Any, request: Request) -> str:
    """The name under which a request's answer is kept."""
    how: list[Any] = [FORMAT, task, version, type(request).__name__]
    if isinstance(request, Score):
        how.append(request.start)
    else:
        stop = list(request.stop)
        how += [request.max_tokens, stop, request.temperature, request.top_p, request.top_k, request.number]
    tokens = array("q", request.ids).tobytes()
    return blake2b(json.dumps(how).encode() + b"\0" + tokens, digest_size=16).hexdigest()
