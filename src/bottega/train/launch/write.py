"""`train` with `launch`: files instead of a run. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import yaml

from bottega.core.atomic import write_text
from bottega.core.errors import UserError
from bottega.core.plan import Plan
from bottega.core.verb import Result
from bottega.core.view import Table
from bottega.train.config import Train
from bottega.train.launch.commands import deepspeed_script, torchrun_script
from bottega.train.launch.skypilot import skypilot_task, skypilot_yaml
from bottega.train.launch.slurm import slurm_script

NOT_OF_THIS_MACHINE = ("memory", "disk", "time")


def plan_launch(plan: Plan) -> Plan:
    """The plan of a run as that of writing its launch files: nothing is written at OUT, this machine need not do."""
    checks = [check for check in plan.checks if check.name not in NOT_OF_THIS_MACHINE]
    return replace(plan, out=None, checks=checks)


def launch_folder(out: Path) -> Path:
    """Where the files of a run at `out` are written."""
    return out.with_name(f"{out.name}.launch")


def write_launch(config: Train) -> Result:
    """Write recipe and start file below OUT.launch; tells what to do with them."""
    launch = config.launch
    assert launch is not None
    folder = launch_folder(config.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError(f"{folder} is a file", hint="Choose another OUT.") from None
    recipe = folder / "recipe.yaml"
    write_text(recipe, yaml.safe_dump(recipe_of(config), sort_keys=False, allow_unicode=True))
    name = re.sub(r"[^\w-]+", "-", config.out.name).strip("-") or "train"
    files = _files(config, recipe, name)
    for file, text in files.items():
        write_text(folder / file, text)
    what = {
        "torchrun": f"bash {folder / 'torchrun.sh'}",
        "slurm": f"sbatch {folder / (name + '.sbatch')}",
        "skypilot": f"sky {'jobs launch' if launch.spot else 'launch'} {folder / (name + '.sky.yaml')}",
        "deepspeed": f"bash {folder / 'deepspeed.sh'}",
    }[launch.kind]
    rows = [(str(folder / file), "") for file in ("recipe.yaml", *files)]
    where = " on each machine" if launch.kind == "torchrun" and launch.nodes > 1 else ""
    view = Table("Written", ("file", ""), rows, f"Nothing was run. To start it{where}: {what}")
    return Result({"files": [row[0] for row in rows], "command": what}, [view])


def recipe_of(config: Train) -> dict[str, object]:
    """The settings that differ from their defaults, without those of the launch and of where it ends."""
    return {
        **config.model_dump(mode="json", exclude_defaults=True, exclude={"launch", "out"}),
        "stage": config.stage,
    }


def _files(config: Train, recipe: Path, name: str) -> dict[str, str]:
    launch, out = config.launch, config.out
    assert launch is not None
    if launch.kind == "slurm":
        return {f"{name}.sbatch": slurm_script(launch, recipe, out, name)}
    if launch.kind == "skypilot":
        return {f"{name}.sky.yaml": skypilot_yaml(skypilot_task(launch, recipe, out, name))}
    if launch.kind == "deepspeed":
        return {"deepspeed.sh": deepspeed_script(launch, recipe, out)}
    return {"torchrun.sh": torchrun_script(launch, recipe, out)}
