"""SkyPilot's own parser reads the tasks that `bottega train --launch skypilot` writes.

    python -m venv /tmp/sky-env && /tmp/sky-env/bin/pip install skypilot==0.14.1
    python benchmarks/launch_files.py --python /tmp/sky-env/bin/python
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

from bottega.train.config import Train
from bottega.train.launch.write import write_launch

LAUNCHES = {
    "one machine": {"accelerators": "H100:8"},
    "four machines": {"accelerators": "A100-80GB:4", "gpus_per_node": 4, "nodes": 4, "setup": ["pip install bottega"]},
    "spot with a bucket": {"accelerators": "H200:8", "spot": True, "bucket": "my-runs", "infra": "aws/us-east-1"},
    "processor alone": {"gpus_per_node": 0, "cpus_per_node": 16, "memory": "64G"},
}
READ = """
import json, sys, sky
task = sky.Task.from_yaml(sys.argv[1])
(resources,) = task.resources
print(json.dumps({
    "version": sky.__version__, "nodes": task.num_nodes, "accelerators": resources.accelerators,
    "spot": resources.use_spot, "run": task.run, "setup": task.setup,
}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="Python of an environment with skypilot")
    parser.add_argument("--quick", action="store_true", help="the first only")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, launch in list(LAUNCHES.items())[: 1 if arguments.quick else None]:
            check(name, launch, Path(folder), arguments.python)


def check(name: str, launch: dict, folder: Path, python: str) -> None:
    values = {"data": "tokens", "tokenizer": "tokenizer", "out": folder / "runs" / "one"}
    files = write_launch(Train.parse({**values, "launch": {"kind": "skypilot", **launch}})).data["files"]
    done = subprocess.run([python, "-c", READ, files[-1]], capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        raise SystemExit(f"{name}: refused\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["nodes"] == launch.get("nodes", 1)
    assert found["spot"] == launch.get("spot", False)
    kind, _, count = str(launch.get("accelerators", "")).partition(":")
    assert (found["accelerators"] or {}) == ({kind: int(count)} if kind else {})
    assert "bottega train" in found["run"]
    print(f"{name}: read by skypilot {found['version']}: {found['nodes']} × {found['accelerators'] or 'no GPU'}")


if __name__ == "__main__":
    main()
