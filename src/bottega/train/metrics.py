"""What a run writes down: `metrics.jsonl`, one line per step, and the trackers the user asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bottega.core.atomic import plain, write_text
from bottega.core.view import Chart, Series

METRICS_FILE = "metrics.jsonl"


class MetricsLog:
    """Appends to `metrics.jsonl`; lines at or behind `from_step` (of an interrupted run) are dropped first."""

    def __init__(self, folder: Path, from_step: int, trackers: Sequence[str]) -> None:
        self.path = folder / METRICS_FILE
        kept = [row for row in read_metrics(self.path) if row["step"] <= from_step]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = self.path.open("a", encoding="utf-8")
        self._trackers = [_TRACKERS[name](folder) for name in trackers]

    def write(self, **values: Any) -> None:
        """One line; it must hold `step`."""
        self._file.write(json.dumps(plain(values)) + "\n")
        for tracker in self._trackers:
            tracker.log(values)

    def flush(self) -> None:
        """Hand what is buffered to the system."""
        self._file.flush()

    def close(self) -> None:
        """Flush and close file and trackers."""
        self._file.close()
        for tracker in self._trackers:
            tracker.close()


class NoLog:
    """What a process writes down that shares the run of another: nothing."""

    def write(self, **values: Any) -> None:
        """Ignore."""

    def flush(self) -> None:
        """Ignore."""

    def close(self) -> None:
        """Ignore."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; a last line cut short by a kill is left out."""
    rows: list[dict[str, Any]] = []
    if path.is_file():
        for line in path.read_text("utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
    return rows


def loss_chart(path: Path, title: str, unit: str = "nats per token") -> Chart:
    """Training and held-out loss by tokens seen, from a `metrics.jsonl`."""
    rows = read_metrics(path)
    tokens = {row["step"]: row["tokens"] for row in rows if "tokens" in row}
    train = [(row["tokens"], row["loss"]) for row in rows if row.get("loss") is not None]
    heldout = [(tokens[row["step"]], row["heldout_loss"]) for row in rows if row.get("heldout_loss") is not None]
    series = [Series("training", train)] + ([Series("held-out", heldout)] if heldout else [])
    return Chart(title, "tokens", f"loss, {unit}" if unit else "loss", series)


class _TensorBoard:
    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if name != "step" and isinstance(value, (int, float)):
                self._writer.add_scalar(name, value, values["step"])

    def close(self) -> None:
        self._writer.close()


class _WandB:
    def __init__(self, folder: Path) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        self._run = wandb.init(project="bottega", dir=str(folder))

    def log(self, values: dict[str, Any]) -> None:
        self._run.log(values, step=values["step"])

    def close(self) -> None:
        self._run.finish()


_TRACKERS = {"tensorboard": _TensorBoard, "wandb": _WandB}
