"""How long `bottega --help` takes, beside an empty Python and (if installed) `transformers --help`.

The floor is the interpreter itself. Goal: under 0.3 s. Exit status 1 if it is missed.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import alternate

GOAL = 0.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 runs instead of 15")
    arguments = parser.parse_args()
    scripts = Path(sys.executable).parent
    commands = {"python -c pass": [sys.executable, "-c", "pass"]}
    commands["bottega --help"] = [str(scripts / "bottega"), "--help"]
    if alternate.peer_installed() and shutil.which("transformers", path=str(scripts)):
        commands["transformers --help"] = [str(scripts / "transformers"), "--help"]
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(5 if arguments.quick else 15):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True)
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    alternate.print_table(("command", "median, s"), [(name, f"{value:.3f}") for name, value in medians.items()])
    ours = medians["bottega --help"]
    print(f"goal: under {GOAL} s: {'reached' if ours < GOAL else 'MISSED'}")
    raise SystemExit(0 if ours < GOAL else 1)


if __name__ == "__main__":
    main()
