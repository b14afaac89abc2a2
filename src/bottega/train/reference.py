"""Log-probabilities by the reference model, taken once before the first step.

The reference is the model that training starts from: the model itself while it has not been trained, with its adapter
switched off, or with the one that training goes on with as it was. So there is no second copy of the weights, and no
second pass in every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch

from bottega.core.atomic import write_bytes
from bottega.core.progress import Reporter
from bottega.data.batches import Row
from bottega.model.lora import as_started
from bottega.train.batch import collate, groups
from bottega.train.stage import Forward

BLOCK = 256  # examples whose rows are in memory at once


def reference_log_probs(
    forward: Forward,
    row_of: Callable[[int], Row],
    count: int,
    wanted: Sequence[int],
    per_example: int,
    micro_batch_tokens: int,
    path: Path,
    reporter: Reporter,
) -> np.ndarray:
    """Log-probability of each document's trained tokens, (count, per_example) float32; NaN where it is not wanted.

    What was computed before an interruption is read from `path`.

    Args:
        forward: of the model before its first step.
        row_of: an example's documents as a row.
        count: examples in all.
        wanted: the examples that the run will see.
        per_example: documents of an example.
        micro_batch_tokens: tokens that pass through the model at once.
        path: a .npy file of the run's work folder.
        reporter: for the bar.
    """
    found = _stored(path, (count, per_example))
    ranks = forward.machine.ranks
    left = ranks.gather([i for i in sorted(set(wanted)) if np.isnan(found[i]).any()])[0]
    if not left:
        return found
    was_training = forward.model.training
    forward.model.eval()
    bar_of = reporter.bar("reference model", len(left), "examples")
    file = _open(path, found) if ranks.is_first else None
    with as_started(forward.model), torch.no_grad(), ranks.gathered(forward.model), bar_of as bar:
        for start in range(0, len(left), BLOCK):
            block = ranks.share(left[start : start + BLOCK])
            rows = [row_of(i) for i in block]
            for group in groups(rows, micro_batch_tokens):
                batch = collate([rows[place] for place in group]).to(forward.machine.device)
                values = forward.answer_log_probs(batch).reshape(len(group), per_example)
                found[[block[place] for place in group]] = values.cpu().numpy()
            for indices, values in ranks.gather([block, found[block].tolist()]):
                found[indices] = np.asarray(values, np.float32).reshape(-1, per_example)
                if file is not None:
                    file[indices] = found[indices]
            bar.advance(min(BLOCK, len(left) - start))
    forward.model.train(was_training)
    return found


def _stored(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """What the file holds, NaN where nothing yet; a fresh one is as large as it will be."""
    if path.is_file():
        stored = np.load(path, allow_pickle=False)
        if stored.shape == shape and stored.dtype == np.float32:
            return stored
    return np.full(shape, np.nan, np.float32)


def _open(path: Path, values: np.ndarray) -> np.memmap:
    """The file of `values`, made in one piece, then written in place: a kill leaves NaN or whole numbers."""
    content = BytesIO()
    np.save(content, values, allow_pickle=False)
    write_bytes(path, content.getvalue())
    return np.lib.format.open_memmap(path, mode="r+")
