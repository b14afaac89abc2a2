"""`bottega train` with DeepSpeed's engine beside its own optimisers, on the CPU: losses, a resume, two processes.

    python -m venv /tmp/ds-env && /tmp/ds-env/bin/pip install wheel setuptools torch
    DS_BUILD_OPS=0 /tmp/ds-env/bin/pip install --no-build-isolation deepspeed==0.19.8   (and bottega)
    DS_ACCELERATOR=cpu /tmp/ds-env/bin/python benchmarks/deepspeed_engine.py

Its communication operator is compiled at the first start, which takes a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bottega.course.companion import companion, question_rows, write_rows

STEPS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one stage, in one process")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        material = Path(folder)
        write_rows(material / "data.jsonl", question_rows(5, 200))
        ours = losses(material, "ours", None)
        try:
            name = f"DeepSpeed {version('deepspeed')}"
        except PackageNotFoundError:
            print("deepspeed is not installed: only our own losses", *(f"{loss:.6f}" for loss in ours))
            return
        for stage in (1,) if arguments.quick else (0, 1, 2):
            for world in (1,) if arguments.quick else (1, 2):
                theirs = losses(material, f"zero{stage}-{world}", zero(stage), world)
                print(f"{name}, ZeRO {stage}, {world} process(es): differs by {gap(ours, theirs):.1e}", flush=True)
        killed = losses(material, "killed", zero(2), kill=True)
        resumed = losses(material, "killed", zero(2))
        print(f"{name}, ZeRO 2, killed at step {len(killed)} and resumed: differs by {gap(ours, resumed):.1e}")


def zero(stage: int) -> dict[str, Any]:
    return {"strategy": "deepspeed", "deepspeed": {"zero_optimization": {"stage": stage}}}


def gap(one: list[float], other: list[float]) -> float:
    assert len(one) == len(other) == STEPS
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def losses(folder: Path, name: str, parallel: Any, world: int = 1, kill: bool = False) -> list[float]:
    """The losses of a run of its own; with `kill` it is killed when its first state is there."""
    out = folder / name
    recipe = {
        "stage": "sft", "model": str(companion("new", folder)), "data": str(folder / "data.jsonl"), "max_steps": STEPS,
        "batch_size": 8, "optimizer": "adamw", "learning_rate": 1e-3, "dtype": "float32", "device": "cpu", "threads": 1,
        "micro_batch_tokens": 256, "compare": False, "save_every": 2, **({"parallel": parallel} if parallel else {}),
    }  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(recipe))
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(world)] if world > 1 else []
    command = [sys.executable, *launcher, "-m", "bottega", "train", str(folder / f"{name}.json"), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    run = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if kill:
        while not list(out.with_name(f"{name}.partial").glob(".work/state-*[0-9]")):
            time.sleep(0.002)
        run.kill()
    output, _ = run.communicate()
    if run.returncode and not kill:
        raise SystemExit(output)
    metrics = (out if out.exists() else out.with_name(f"{name}.partial")) / "metrics.jsonl"
    return [json.loads(line)["loss"] for line in metrics.read_text().splitlines()]


if __name__ == "__main__":
    main()
