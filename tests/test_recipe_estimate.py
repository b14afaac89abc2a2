"""The plan's time against the time taken (slow tier): between half and twice."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import Workshop


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("layers", "hidden_size", "tokens"), [(2, 128, 200_000), (4, 256, 40_000)])
def test_predicted_over_actual_seconds_of_training(
    workshop: Workshop, tmp_path: Path, layers: int, hidden_size: int, tokens: int
) -> None:
    """On one core. The rates are measured just before, so that what else the machine does slows down both."""
    settings = {
        "data": workshop.tokens, "tokenizer": workshop.tokenizer, "layers": layers, "hidden_size": hidden_size,
        "tokens": tokens, "threads": 1, "dtype": "float32", "save_every": 1000,
    }  # fmt: skip
    words = [sys.executable, "-m", "bottega", "train", *(f"{name}={value}" for name, value in settings.items())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path)}
    ratios = []
    for number in range(3):
        (tmp_path / "bottega" / "machine.json").unlink(missing_ok=True)
        out = [f"out={tmp_path / str(number)}"]
        plan = subprocess.run([*words, *out, "--plan", "--json"], capture_output=True, check=True, env=environment)
        predicted = json.loads(plan.stdout)["cost"]["seconds"]
        started = time.perf_counter()
        subprocess.run([*words, *out], capture_output=True, check=True, env=environment)
        ratios.append(predicted / (time.perf_counter() - started))
    print("predicted over actual:", [round(ratio, 2) for ratio in ratios])
    assert 0.5 <= statistics.median(ratios) <= 2.0, ratios
