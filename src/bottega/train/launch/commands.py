"""The commands that start the processes of a run, as lines of a shell script."""

from __future__ import annotations

import shlex
from pathlib import Path

from bottega.train.launch.config import LaunchSettings

STOP_FILE = "stop"
"""In the run's work folder: it asks the run to save its state and end."""


def bottega_command(recipe: Path, out: Path) -> str:
    """What every process runs."""
    return f"bottega train {shlex.quote(str(recipe))} --out {shlex.quote(str(out))}"


def torchrun_command(launch: LaunchSettings, what: str, *, node_rank: str, address: str) -> str:
    """torchrun on one of the machines; `node_rank` and `address` are words of the shell that say which, and where."""
    if launch.nodes == 1:
        return f"torchrun --standalone --nproc-per-node {launch.processes} -m {what}"
    lines = [
        f"torchrun --nnodes {launch.nodes} --nproc-per-node {launch.processes}",
        f"  --node-rank {node_rank} --master-addr {address} --master-port {launch.port}",
        f"  -m {what}",
    ]
    return " \\\n".join(lines)


def script(lines: list[str]) -> str:
    """A shell script that stops at the first line that fails."""
    return "\n".join(["#!/bin/bash", *lines]) + "\n"


def torchrun_script(launch: LaunchSettings, recipe: Path, out: Path) -> str:
    """For machines that one logs in to: started once on each."""
    several = launch.nodes > 1
    usage = [
        f"# Start this on each of the {launch.nodes} machines, with NODE_RANK=0 on the first, 1 on the second, …,",
        "# and MASTER_ADDR=ADDRESS of the first. All of them must see OUT's folder.",
        ': "${NODE_RANK:?number of this machine, from 0}" "${MASTER_ADDR:?address of the first machine}"',
    ]
    command = torchrun_command(
        launch, bottega_command(recipe, out), node_rank='"$NODE_RANK"', address='"$MASTER_ADDR"'
    )
    return script([*(usage if several else []), "set -euo pipefail", *_place(launch), *launch.setup, command])


def deepspeed_script(launch: LaunchSettings, recipe: Path, out: Path) -> str:
    """DeepSpeed's own launcher, which reaches the other machines by ssh."""
    hosts = f" --num_nodes {launch.nodes} --hostfile hostfile --master_port {launch.port}" if launch.nodes > 1 else ""
    note = ["# `hostfile` names the machines, a line each: ADDRESS slots=GPUS"] if launch.nodes > 1 else []
    command = f"deepspeed --num_gpus {launch.processes}{hosts} --module {bottega_command(recipe, out)}"
    return script([*note, "set -euo pipefail", *_place(launch), *launch.setup, command])


def _place(launch: LaunchSettings) -> list[str]:
    return [f"cd {shlex.quote(str(launch.workdir))}"] if launch.workdir else []
