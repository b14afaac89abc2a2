"""A task for SkyPilot, which rents machines (docs.skypilot.co, "SkyPilot YAML").

`sky launch` copies the working folder to the machines, runs `setup` once on each, and `run` on all of them; it says in
SKYPILOT_NODE_RANK and SKYPILOT_NODE_IPS which one each is. With `sky jobs launch` and a bucket for OUT, a run that
loses its machines goes on from its state on new ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from bottega.core.errors import UserError
from bottega.train.launch.commands import bottega_command, torchrun_command
from bottega.train.launch.config import LaunchSettings


def skypilot_task(launch: LaunchSettings, recipe: Path, out: Path, name: str) -> dict[str, Any]:
    """The task as data."""
    command = torchrun_command(
        launch,
        bottega_command(recipe, out),
        node_rank='"$SKYPILOT_NODE_RANK"',
        address='"$(echo "$SKYPILOT_NODE_IPS" | head -n 1)"',
    )
    resources = {
        "infra": launch.infra,
        "accelerators": launch.accelerators,
        "cpus": f"{launch.cpus_per_node}+" if launch.cpus_per_node else None,
        "memory": f"{int(launch.memory.rstrip('KMGT'))}+" if launch.memory and launch.memory.endswith("G") else None,
        "use_spot": launch.spot or None,
        "image_id": launch.image,
    }
    task = {
        "name": name,
        "num_nodes": launch.nodes,
        "workdir": str(launch.workdir or "."),
        "resources": {key: value for key, value in resources.items() if value is not None},
        "file_mounts": {_mount(out): {"name": launch.bucket, "mode": "MOUNT_CACHED"}} if launch.bucket else None,
        "setup": "\n".join(launch.setup) + "\n" if launch.setup else None,
        "run": f"set -e\n{command}\n",
    }
    return {key: value for key, value in task.items() if value is not None}


def _mount(out: Path) -> str:
    """Where the bucket is to be seen: OUT's folder, in which the unfinished run has its own."""
    if out.parent == Path():
        raise UserError("the bucket would hide the working folder", hint="Give OUT a folder of its own: runs/NAME.")
    return str(out.parent) if out.is_absolute() else f"~/sky_workdir/{out.parent}"


class _Blocks(yaml.SafeDumper):
    """Texts of several lines as blocks, as people write them."""


_Blocks.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else "")
)


def skypilot_yaml(task: dict[str, Any]) -> str:
    """The task as its file."""
    return yaml.dump(task, Dumper=_Blocks, sort_keys=False, allow_unicode=True)
