"""`bottega doctor`: what this machine can do, measured, and what follows from it."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bottega.core.machine import (
    NATIVE_BFLOAT16,
    Machine,
    Rates,
    cache_path,
    facts,
    measure,
    preferred_dtype,
    resolve_threads,
)
from bottega.core.plan import Cost, Plan, Specs
from bottega.core.schema import Config
from bottega.core.verb import Context, Result
from bottega.core.view import Block, Table, Text, human_bytes

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "firefox", "microsoft-edge")
MAC_BROWSERS = ("Google Chrome", "Chromium", "Firefox", "Safari", "Microsoft Edge")
KERNELS = "bottega.model.kernels._compiled"
OPTIONAL = ("huggingface_hub", "tensorboard", "wandb")
_LOW_MEMORY = 4 * 2**30
_LOW_DISK = 5 * 2**30


class Doctor(Config):
    """Settings of `bottega doctor`."""

    measure: bool = True
    """Measure matrix products and memory anew (half a second)."""


def plan_doctor(config: Doctor, specs: Specs) -> Plan:  # noqa: ARG001 (a verb's plan has this form)
    """Nothing to check."""
    work = ["look at the system"] + (["measure matrix products and memory"] if config.measure else [])
    return Plan("doctor", config, work=work, cost=Cost(seconds=3.0 if config.measure else 0.5))


def run_doctor(plan: Plan, context: Context) -> Result:  # noqa: ARG001 (a verb's run has this form)
    """Look, measure, advise."""
    assert isinstance(plan.config, Doctor)
    machine = facts(Path())
    rates = _rates() if plan.config.measure and machine.torch else None
    found: dict[str, Any] = {
        "machine": asdict(machine),
        "rates": asdict(rates) if rates else None,
        "dtype": preferred_dtype(),
        "accelerators": _accelerators() if plan.config.measure and machine.torch else None,
        "kernels": importlib.util.find_spec(KERNELS) is not None,
        "browser": find_browser(),
        "packages": {name: importlib.util.find_spec(name) is not None for name in OPTIONAL},
        "advice": advice(machine, rates),
    }
    return Result(found, view(found))


def find_browser() -> str | None:
    """Path of the first browser found, None if there is none."""
    for name in BROWSERS:
        path = shutil.which(name)
        if path:
            return path
    applications = (Path("/Applications") / f"{name}.app" for name in MAC_BROWSERS)
    return next((str(path) for path in applications if path.is_dir()), None)


def advice(machine: Machine, rates: Rates | None) -> list[str]:
    """What follows from the facts, a sentence each."""
    lines = []
    if machine.torch is None:
        lines.append("torch is not installed: nothing can be computed. Install it with: pip install torch")
    if rates is not None:
        gigaflops = f"{rates.bfloat16 / 1e9:.0f} vs {rates.float32 / 1e9:.0f} GFLOP/s"
        if not NATIVE_BFLOAT16 & set(machine.flags):
            lines.append(f"bfloat16 is emulated here: {gigaflops} in float32, so float32 is used.")
        else:
            lines.append(f"bfloat16 is {rates.bfloat16 / rates.float32:.1f} times as fast as float32 ({gigaflops}).")
    if machine.memory_available is not None and machine.memory_available < _LOW_MEMORY:
        lines.append(f"Only {human_bytes(machine.memory_available)} of memory are free: choose a small size.")
    if machine.disk_free is not None and machine.disk_free < _LOW_DISK:
        lines.append(f"Only {human_bytes(machine.disk_free)} of disk are free here: checkpoints may not fit.")
    if rates is not None and rates.threads < machine.cores:
        lines.append(f"torch uses {rates.threads} of {machine.cores} cores; --threads changes it.")
    return lines


def view(found: dict[str, Any]) -> list[Block]:
    """The findings for people."""
    machine, rates = found["machine"], found["rates"]
    packages = found["packages"]
    rows = [
        ("system", f"{machine['system']}, Python {machine['python']}"),
        ("processor", machine["cpu"]),
        ("cores", machine["cores"]),
        ("instructions", " ".join(machine["flags"]) or "not known"),
        ("memory", f"{_size(machine['memory_total'])}, {_size(machine['memory_available'])} free"),
        ("disk here", f"{_size(machine['disk_free'])} free"),
        ("torch", machine["torch"] or "not installed"),
        ("generation kernels", "compiled" if found["kernels"] else "not compiled: install again with a C compiler"),
        ("accelerators", ", ".join(found["accelerators"] or []) or "none"),
        ("browser", found["browser"] or "none found"),
        ("optional packages", ", ".join(name for name in packages if packages[name]) or "none"),
    ]
    blocks: list[Block] = [Table("This machine", ("", ""), rows)]
    if rates:
        speeds = [
            ("matrix products, float32", f"{rates['float32'] / 1e9:.0f} GFLOP/s"),
            ("matrix products, bfloat16", f"{rates['bfloat16'] / 1e9:.0f} GFLOP/s"),
            ("reading memory", f"{rates['memory'] / 1e9:.1f} GB/s"),
            ("precision that auto takes", found["dtype"]),
        ]
        note = f"{rates['threads']} threads; kept in {cache_path()}"
        blocks.append(Table("Measured", ("", ""), speeds, note))
    return blocks + [Text(line) for line in found["advice"]]


def _rates() -> Rates:
    import torch

    torch.set_num_threads(resolve_threads(None))
    return measure(refresh=True)


def _accelerators() -> list[str]:
    import torch

    names = [
        f"{torch.cuda.get_device_name(index)} ({human_bytes(torch.cuda.get_device_properties(index).total_memory)})"
        for index in range(torch.cuda.device_count())
    ]
    return names + (["Apple GPU (mps)"] if torch.backends.mps.is_available() else [])


def _size(size: int | None) -> str:
    return "unknown" if size is None else human_bytes(size)
