"""The quickstart as a newcomer runs it: each step's planned and taken time, and the peak memory of the process.

    python benchmarks/quickstart.py
    python benchmarks/quickstart.py --size tiny --text ~/notes

The shipped recipe runs in a fresh workspace, in a process of its own; time is the wall's clock, so the machine should
have nothing else to do. Ends with status 1 if a goal is missed (with --quick the goals are only shown).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import alternate
from bottega.core.view import human_bytes, human_seconds

GOAL_SECONDS, GOAL_BYTES = 6 * 60, 4 * 10**9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="on bottega's own docs, size tiny, a few steps of training"
    )
    parser.add_argument("--size", choices=("tiny", "small", "base"), default="small")
    parser.add_argument("--text", default="python", help="'python', or a file or folder of documents")
    arguments = parser.parse_args()
    settings = ["--size", arguments.size, "--text", arguments.text]
    if arguments.quick:
        settings = ["--size", "tiny", "--text", str(Path(__file__).parents[1] / "docs"), "train.tokens=8192"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "bottega", "run", "quickstart", "--workspace", folder, *settings]
        print("bottega", *command[3:5], *settings)
        planned = subprocess.run([*command, "--plan", "--json"], stdout=subprocess.PIPE, check=True)
        seconds, peak = run([*command, "--quiet"])
        met = show(json.loads(planned.stdout), Path(folder) / "quickstart", seconds, peak)
    if not met and not arguments.quick:
        raise SystemExit(1)


def run(command: list[str]) -> tuple[float, int]:
    """Seconds from start to end of a process, and the most bytes that it held at once."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the recipe failed with status {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - started, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def show(plan: list[dict[str, Any]], folder: Path, seconds: float, peak: int) -> bool:
    """Print the table; whether both goals are met."""
    rows, taken, estimated = [], 0.0, 0.0
    for step in plan:
        record = json.loads((folder / step["step"] / "record.json").read_text("utf-8"))
        cost = step["cost"]
        rows.append([step["step"], *times(cost["seconds"], record["seconds"]), human_bytes(cost["peak_memory"])])
        taken, estimated = taken + record["seconds"], estimated + (cost["seconds"] or 0.0)
    rows.append(["between the steps (starting, planning, report)", "", human_seconds(seconds - taken), "", ""])
    memory = human_bytes(max(step["cost"]["peak_memory"] for step in plan))
    rows.append(["**in all**", *times(estimated, seconds), memory])
    alternate.print_table(("step", "planned", "taken", "planned / taken", "planned memory"), rows)
    goals = (("time", seconds, GOAL_SECONDS, human_seconds), ("peak memory", peak, GOAL_BYTES, human_bytes))
    for name, value, goal, shown in goals:
        print(f"{name}: {shown(value)}, goal under {shown(goal)}: {'met' if value < goal else 'MISSED'}")
    return all(value < goal for _, value, goal, _ in goals)


def times(planned: float | None, taken: float) -> tuple[str, str, str]:
    if planned is None:
        return "not estimated", human_seconds(taken), ""
    return human_seconds(planned), human_seconds(taken), f"{planned / max(taken, 1e-3):.2f}"


if __name__ == "__main__":
    main()
