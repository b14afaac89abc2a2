"""A batch script for Slurm (sbatch's manual, slurm.schedmd.com/sbatch.html).

One task on each machine starts torchrun, which starts a process for each GPU; they meet at the first machine. Five
minutes before the time is up, and where a more important job wants the machines, Slurm sends USR1 to the script: it
asks the run to save its state (by a file: nothing is to be killed for it), waits, and has the job queued again. The
same script then goes on from that state.
"""

from __future__ import annotations

import math
import shlex
from pathlib import Path

from bottega.core.atomic import WORK_FOLDER, partial_path
from bottega.train.launch.commands import STOP_FILE, bottega_command, script, torchrun_command
from bottega.train.launch.config import LaunchSettings

NOTICE = 300  # seconds that a run has to save its state


def slurm_script(launch: LaunchSettings, recipe: Path, out: Path, name: str) -> str:
    """The script that `sbatch` takes."""
    stop = partial_path(out) / WORK_FOLDER / STOP_FILE
    torchrun = torchrun_command(
        launch, bottega_command(recipe, out), node_rank='"$SLURM_NODEID"', address='"$MASTER_ADDR"'
    )
    container = f" --container-image={launch.image} --container-mounts=\"$PWD:$PWD\" --container-workdir=\"$PWD\"" if (
        launch.image
    ) else ""
    return script(
        [
            *(f"#SBATCH --{key}" + (f"={value}" if value else "") for key, value in directives(launch, recipe, name)),
            "set -euo pipefail",
            f"cd {shlex.quote(str(launch.workdir))}" if launch.workdir else 'cd "$SLURM_SUBMIT_DIR"',
            *launch.setup,
            'mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")',
            'export MASTER_ADDR="${hosts[0]}"',
            "",
            "again() {",
            f"  touch {shlex.quote(str(stop))} || true",
            '  wait "$run" || true',
            '  scontrol requeue "$SLURM_JOB_ID"',
            "  exit 0",
            "}",
            "trap again USR1",
            "",
            "# Single quotes: each machine reads its own SLURM_NODEID.",
            f"srun --kill-on-bad-exit=1{container} bash -c {shlex.quote(torchrun)} &",
            "run=$!",
            'wait "$run"',
        ]
    )


def _time(hours: float) -> str:
    """Days-hours:minutes:seconds, rounded up to minutes."""
    minutes = math.ceil(hours * 60)
    return f"{minutes // 1440}-{minutes // 60 % 24:02d}:{minutes % 60:02d}:00"


def directives(launch: LaunchSettings, recipe: Path, name: str) -> list[tuple[str, str]]:
    """Options of sbatch, in their long form; an option without a value has an empty one."""
    log = recipe.parent / "%x-%j.log"
    found = [
        ("job-name", name),
        ("nodes", str(launch.nodes)),
        ("ntasks-per-node", "1"),
        ("gpus-per-node", str(launch.gpus_per_node) if launch.gpus_per_node else None),
        ("cpus-per-task", str(launch.cpus_per_node) if launch.cpus_per_node else None),
        ("mem", launch.memory),
        ("time", _time(launch.hours) if launch.hours else None),
        ("partition", launch.partition),
        ("account", launch.account),
        ("output", shlex.quote(str(log))),
        ("open-mode", "append"),
        ("requeue", ""),
        ("signal", f"B:USR1@{NOTICE}"),
    ]
    return [(key, value) for key, value in found if value is not None]
