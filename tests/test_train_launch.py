"""Launch files: sbatch's options by its manual, scripts by bash, tasks by SkyPilot's documented fields.

SkyPilot's own parser reads the same tasks in benchmarks/launch_files.py, in an environment of its own.
"""

from __future__ import annotations

import re
import shlex
import stat
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from bottega import verbs
from bottega.core.errors import UserError
from bottega.core.schema import read_yaml
from bottega.train.config import Train
from bottega.train.launch.config import LaunchSettings
from bottega.train.launch.write import recipe_of, write_launch
from conftest import Workshop

# sbatch's manual, "OPTIONS": name → its values. Times are days-hours:minutes:seconds; sizes have a unit or none.
SBATCH = {
    "job-name": r"\S+",
    "nodes": r"\d+(-\d+)?",
    "ntasks-per-node": r"\d+",
    "gpus-per-node": r"(\w+:)?\d+",
    "cpus-per-task": r"\d+",
    "mem": r"\d+[KMGT]?",
    "time": r"\d+(:\d{2}){0,2}|\d+-\d{1,2}(:\d{2}){0,2}",
    "partition": r"[\w.,-]+",
    "account": r"[\w.-]+",
    "output": r"\S+|'[^']+'",
    "open-mode": r"append|truncate",
    "requeue": r"",
    "signal": r"([BR]:)?(\w+)(@\d+)?",
}
# docs.skypilot.co, "SkyPilot YAML".
SKYPILOT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["resources", "run"],
    "properties": {
        "name": {"type": "string", "pattern": r"^[a-zA-Z0-9]([\w.-]*[a-zA-Z0-9])?$"},
        "workdir": {"type": "string"},
        "num_nodes": {"type": "integer", "minimum": 1},
        "setup": {"type": "string"},
        "run": {"type": "string"},
        "file_mounts": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "properties": {"name": {"type": "string"}, "mode": {"enum": ["MOUNT", "COPY", "MOUNT_CACHED"]}},
            },
        },
        "resources": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "infra": {"type": "string"},
                "accelerators": {"type": "string", "pattern": r"^[\w.-]+(:\d+)?$"},
                "cpus": {"type": "string", "pattern": r"^\d+\+?$"},
                "memory": {"type": "string", "pattern": r"^\d+\+?$"},
                "use_spot": {"type": "boolean"},
                "image_id": {"type": "string"},
            },
        },
    },
}
EVERYTHING: dict[str, Any] = {
    "nodes": 2, "gpus_per_node": 4, "hours": 36.5, "partition": "gpu-long", "account": "lab.7", "cpus_per_node": 64,
    "memory": "512G", "setup": ["module load cuda", "source 'my env/bin/activate'"], "workdir": "/home/me/my project",
    "image": "registry/bottega:1.0", "accelerators": "H100:4",
}  # fmt: skip


def config_of(out: Path, launch: Any, **settings: Any) -> Train:
    values = {"data": "tokens", "tokenizer": "tokenizer", "out": out, "launch": launch, "max_steps": 7, **settings}
    return Train.parse(values)


def written(out: Path, launch: Any, suffix: str) -> str:
    files = write_launch(config_of(out, launch)).data["files"]
    (path,) = (Path(file) for file in files if file.endswith(suffix))
    return path.read_text()


def directives(text: str) -> list[tuple[str, str]]:
    """#SBATCH lines; the manual: they end at the first line that is no comment."""
    found = []
    lines = text.splitlines()
    assert lines[0] == "#!/bin/bash"
    for line in lines[1:]:
        if not line.startswith("#"):
            break
        match = re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(\S+|'[^']*'))?", line)
        assert match, line
        found.append((match[1], match[2] or ""))
    assert sum("#SBATCH" in line for line in lines) == len(found)
    return found


def assert_bash(text: str, folder: Path) -> None:
    (folder / "script").write_text(text)
    done = subprocess.run(["bash", "-n", folder / "script"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("launch", [{}, EVERYTHING, {"nodes": 16, "hours": 0.5}, {"gpus_per_node": 0}])
def test_sbatch_options_are_those_of_its_manual(tmp_path: Path, launch: dict[str, Any]) -> None:
    text = written(tmp_path / "run", {"kind": "slurm", **launch}, ".sbatch")
    found = directives(text)
    assert len(dict(found)) == len(found)
    for name, value in found:
        assert re.fullmatch(SBATCH[name], value), (name, value)
    assert dict(found)["nodes"] == str(launch.get("nodes", 1))
    assert ("gpus-per-node" in dict(found)) == (launch.get("gpus_per_node") != 0)
    assert_bash(text, tmp_path)


def test_hours_are_slurms_time(tmp_path: Path) -> None:
    text = written(tmp_path / "run", {"kind": "slurm", "hours": 36.5}, ".sbatch")
    assert dict(directives(text))["time"] == "1-12:30:00"


FAKES = {
    "scontrol": 'echo "scontrol $*" >> "$LOG"; if [ "$1" = show ]; then echo first; echo second; fi',
    "srun": 'shift; SLURM_NODEID=1 "$@"',
    "torchrun": 'echo "torchrun $*" >> "$LOG"; for _ in $(seq 100); do [ -e "$STOP" ] && exit 130; sleep 0.1; done',
    "module": "true",
}


def test_a_batch_script_whose_time_is_up_asks_for_the_state_and_is_queued_again(tmp_path: Path) -> None:
    """The real script under bash, with stand-ins for Slurm's and torch's programs."""
    programs, out = tmp_path / "programs", tmp_path / "my run"
    programs.mkdir()
    for name, body in FAKES.items():
        (programs / name).write_text(f"#!/bin/bash\n{body}\n")
        (programs / name).chmod(stat.S_IRWXU)
    text = written(out, {"kind": "slurm", "nodes": 2, "gpus_per_node": 4}, ".sbatch")
    (tmp_path / "job").write_text(text)
    work = tmp_path / "my run.partial" / ".work"
    work.mkdir(parents=True)
    log = tmp_path / "log"
    environment = {
        "PATH": f"{programs}:/usr/bin:/bin", "LOG": str(log), "STOP": str(work / "stop"), "SLURM_JOB_ID": "42",
        "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_SUBMIT_DIR": str(tmp_path),
    }  # fmt: skip
    job = subprocess.Popen(["bash", tmp_path / "job"], env=environment)
    try:
        for _ in range(200):
            if log.exists() and "torchrun" in log.read_text():
                break
            with pytest.raises(subprocess.TimeoutExpired):
                job.wait(0.05)
        job.send_signal(10)  # USR1
        assert job.wait(20) == 0
    finally:
        job.kill()
    lines = log.read_text().splitlines()
    assert lines[0] == "scontrol show hostnames node[1-2]"
    recipe = shlex.join([f"{out}.launch/recipe.yaml"])
    start = "torchrun --nnodes 2 --nproc-per-node 4 --node-rank 1 --master-addr first --master-port 29500"
    assert lines[1].startswith(start)
    assert lines[1].endswith(f"-m bottega train {shlex.split(recipe)[0]} --out {out}")
    assert lines[2] == "scontrol requeue 42"


@pytest.mark.parametrize("launch", [{"accelerators": "H100:8"}, EVERYTHING, {"gpus_per_node": 0, "cpus_per_node": 4}])
def test_a_task_has_skypilots_fields(tmp_path: Path, launch: dict[str, Any]) -> None:
    task = yaml.safe_load(written(tmp_path / "run", {"kind": "skypilot", **launch}, ".sky.yaml"))
    jsonschema.validate(task, SKYPILOT)
    assert task["num_nodes"] == launch.get("nodes", 1)
    assert_bash(task["run"], tmp_path)
    assert ("$SKYPILOT_NODE_RANK" in task["run"]) == (launch.get("nodes", 1) > 1)


def test_a_bucket_is_mounted_where_the_run_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    launch = {"kind": "skypilot", "gpus_per_node": 0, "bucket": "my-runs", "spot": True}
    task = yaml.safe_load(written(Path("runs/one"), launch, ".sky.yaml"))
    jsonschema.validate(task, SKYPILOT)
    assert task["file_mounts"] == {"~/sky_workdir/runs": {"name": "my-runs", "mode": "MOUNT_CACHED"}}
    with pytest.raises(UserError, match="would hide the working folder"):
        write_launch(config_of(Path("one"), launch))


@pytest.mark.parametrize("kind", ["torchrun", "deepspeed"])
@pytest.mark.parametrize("nodes", [1, 3])
def test_scripts_are_bash(tmp_path: Path, kind: str, nodes: int) -> None:
    text = written(tmp_path / "my run", {**EVERYTHING, "kind": kind, "nodes": nodes}, ".sh")
    assert_bash(text, tmp_path)
    assert "cd '/home/me/my project'" in text
    assert ("MASTER_ADDR" in text) == (nodes > 1 and kind == "torchrun")
    assert ("hostfile" in text) == (nodes > 1 and kind == "deepspeed")


def test_the_written_recipe_is_the_run_without_its_launch(tmp_path: Path) -> None:
    more = {"learning_rate": 1e-4, "parallel": {"strategy": "zero1"}}
    config = config_of(tmp_path / "run", {"kind": "slurm", "nodes": 2}, **more)
    write_launch(config)
    again = Train.parse({**read_yaml(tmp_path / "run.launch" / "recipe.yaml"), "out": config.out})
    assert again == config.model_copy(update={"launch": None})
    assert "launch" not in recipe_of(config)


def test_train_writes_files_and_runs_nothing(workshop: Workshop, tmp_path: Path) -> None:
    values = {"data": workshop.tokens, "tokenizer": workshop.tokenizer, "layers": 1, "hidden_size": 64, "max_steps": 2}
    found = verbs.train(**values, out=tmp_path / "run", launch="slurm")
    assert found["command"] == f"sbatch {tmp_path / 'run.launch' / 'run.sbatch'}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.launch"]


@pytest.mark.parametrize(
    ("launch", "message"),
    [
        ("kubernetes", "'torchrun', 'slurm', 'skypilot' or 'deepspeed'"),
        ("skypilot", "skypilot needs accelerators"),
        ({"kind": "slurm", "partition": "gpu; rm -rf /"}, "partition"),
        ({"kind": "slurm", "setup": ["true\n#SBATCH --time=1"]}, "single lines"),
        ({"kind": "slurm", "memory": "lots"}, "memory"),
    ],
)
def test_what_cannot_be_launched_is_refused(tmp_path: Path, launch: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        config_of(tmp_path / "run", launch)


def test_a_word_and_a_section_of_launch_go_together(tmp_path: Path) -> None:
    assert LaunchSettings.parse({"kind": "slurm"}) == Train.parse(
        {"data": "d", "tokenizer": "t", "out": tmp_path, "launch": "slurm"}
    ).launch
