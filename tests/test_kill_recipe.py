"""`kill -9` at any point of a recipe, and then again to the end: nothing that looks finished is wrong,
nothing is left over, and what comes out is bitwise what an uninterrupted run makes.

Every run is a real one in a process of its own. To spare each of them the import of torch, they are
forked from one process that has done it (this file as a script) and has nothing else open.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bottega.core.atomic import WORK_FOLDER
from bottega.core.hashing import NOT_CONTENT, digest_path
from bottega.core.record import read_record

RECIPE = """
name: tiny
parameters: {text: text}
steps:
  corpus: {verb: data collect, source: "${text}"}
  tokenizer: {verb: tokenizer train, data: "${corpus}", vocab_size: 320}
  tokens: {verb: data prepare, data: "${corpus}", tokenizer: "${tokenizer}"}
  heldout: {verb: data prepare, data: "${corpus}", tokenizer: "${tokenizer}", split: heldout}
  base:
    {verb: train, data: "${tokens}", heldout: "${heldout}", tokenizer: "${tokenizer}", layers: 2, hidden_size: 64,
     row_length: 64, tokens_per_step: 256, tokens: 6144, save_every: 3, evaluate_every: 4, evaluate_tokens: 512,
     patience: 4, threads: 1, dtype: float32}
  chat: {verb: data prepare, data: "${corpus}", tokenizer: "${tokenizer}", kind: chat}
  model:
    {verb: train, stage: sft, data: "${chat}", model: "${base}", row_length: 128, tokens_per_step: 256, tokens: 3072,
     save_every: 2, threads: 1, dtype: float32}
  evaluation: {verb: eval, model: "${model}", text: "${corpus}", max_tokens: 500, threads: 1, dtype: float32}
"""
STEPS = ("corpus", "tokenizer", "tokens", "heldout", "base", "chat", "model", "evaluation")
# What the system is asked to change; before any of these calls a process may die.
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}


def run_recipe(workspace: Path, die_at: int) -> None:
    """In the forked process: the recipe, killed just before its change number `die_at` of the file system."""
    from bottega.core.progress import Quiet
    from bottega.core.recipe import Chain, load_recipe, with_overrides
    from bottega.verbs.registry import VERBS

    count = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        # What is known of the machine lies elsewhere, and is not measured in every run.
        if arguments and str(arguments[0]).startswith(os.environ["XDG_CACHE_HOME"]):
            return
        writes = event == "open" and isinstance(arguments[1], str) and arguments[1][0] in "wxa"
        if writes or event in CHANGES:
            count += 1
            if count == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    root = workspace.parent.parent
    recipe = with_overrides(load_recipe(str(root / "tiny.yaml")), [f"text={root / 'text'}"])
    os.chdir(workspace.parent)  # so that no two runs see other paths
    Chain(recipe, Path(workspace.name), VERBS).run(Quiet())
    Path("changes").write_text(str(count))


def serve_runs() -> None:
    """A line `WORKSPACE DIE_AT` starts a run and answers with its id; the next line, of any content, with its end."""
    import torch._dynamo  # noqa: F401 (what optimisers import when they first step)

    import bottega.data.collect
    import bottega.evaluate.run
    import bottega.train.run  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        workspace, die_at = line.split("\t")
        pid = os.fork()
        if pid == 0:
            try:
                run_recipe(Path(workspace), int(die_at))
                os._exit(0)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
        print(pid, flush=True)
        sys.stdin.readline()
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


class Runner:
    """The process that runs are forked from."""

    def __init__(self, root: Path) -> None:
        self.root, self.number = root, 0
        alone = {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "XDG_CACHE_HOME": str(root / "cache")}
        environment = {**os.environ, **alone}
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self.answer() == "ready"

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, text: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return self.answer()

    def start(self, workspace: Path, die_at: int = 0) -> int:
        return int(self.ask(f"{workspace}\t{die_at}"))

    def end(self) -> int:
        """Wait for the run; 0, or minus the signal that killed it."""
        return int(self.ask("end"))

    def fresh(self) -> Path:
        self.number += 1
        workspace = self.root / f"run-{self.number}" / "workspace"
        workspace.parent.mkdir()
        return workspace

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


def write_documents(folder: Path) -> None:
    """Documents with headings, each followed by prose."""
    draw = random.Random(1)
    words = ("stone", "river", "lamp", "garden", "winter", "letter", "cloud", "bread", "silver", "window", "road")
    folder.mkdir()
    for number in range(30):
        parts = [f"# Chapter {number}\n"]
        for section in range(6):
            title = " ".join(draw.sample(words, 2)).capitalize()
            prose = " ".join(draw.choices(words, k=40))
            parts.append(f"## {title} {number}.{section}\n\nThe {prose}. It is {draw.choice(words)}.\n")
        (folder / f"{number:02d}.md").write_text("\n".join(parts))


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    root = tmp_path_factory.mktemp("kill")
    (root / "tiny.yaml").write_text(RECIPE)
    write_documents(root / "text")
    made = Runner(root)
    yield made
    made.close()


@pytest.fixture(scope="module")
def whole(runner: Runner) -> tuple[Path, float, int]:
    """An uninterrupted run: its workspace, the seconds it took, and its number of changes."""
    workspace = runner.fresh()
    runner.start(workspace)
    assert runner.end() == 0  # measures the machine's rates too
    workspace = runner.fresh()
    started = time.monotonic()
    runner.start(workspace)
    assert runner.end() == 0
    seconds = time.monotonic() - started
    assert losses(workspace / "tiny" / "base") and losses(workspace / "tiny" / "model")
    return workspace, seconds, int((workspace.parent / "changes").read_text())


def losses(folder: Path) -> list[tuple[object, ...]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row.get("loss"), row.get("heldout_loss"), row.get("gradient_norm")) for row in rows]


def check_what_looks_finished(workspace: Path) -> None:
    """Wherever a record stands, the folder is complete."""
    for path in workspace.rglob("record.json"):
        record = read_record(path.parent)
        assert record is not None and record.content_hash == digest_path(path.parent, NOT_CONTENT), path
    for step in STEPS:  # a step's own name appears only with its record
        folder = workspace / "tiny" / step
        assert not folder.exists() or (folder / "record.json").is_file(), step


def check_continued(runner: Runner, workspace: Path, whole: Path) -> None:
    """Run to the end: everything bitwise as in the uninterrupted run, and nothing left over."""
    runner.start(workspace)
    assert runner.end() == 0
    check_what_looks_finished(workspace)
    assert sorted(path.name for path in (workspace / "tiny").iterdir()) == sorted(STEPS)
    names = [{path.relative_to(root).as_posix() for path in root.rglob("*")} for root in (workspace, whole)]
    assert names[0] == names[1]
    for step in STEPS:
        ours, theirs = (read_record(root / "tiny" / step) for root in (workspace, whole))
        assert ours is not None and theirs is not None
        assert ours.step_hash == theirs.step_hash and ours.content_hash == theirs.content_hash, step
    for step in ("base", "model"):
        assert losses(workspace / "tiny" / step) == losses(whole / "tiny" / step)
        weights = [(root / "tiny" / step / "model" / "model.safetensors").read_bytes() for root in (workspace, whole)]
        assert weights[0] == weights[1]


def kill_after(runner: Runner, workspace: Path, seconds: float) -> None:
    pid = runner.start(workspace)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    assert runner.end() in (0, -signal.SIGKILL)


def kill_while_building(runner: Runner, workspace: Path, step: str, number: int) -> bool:
    """Kill as soon as the state number `number` of a training run is being written; whether it was seen."""
    pid, seen, ended = runner.start(workspace), set[str](), time.monotonic() + 60
    work = workspace / "tiny" / f"{step}.partial" / WORK_FOLDER
    while len(seen) < number and time.monotonic() < ended and not (workspace / "tiny" / step).exists():
        try:
            seen |= {path.name for path in work.iterdir() if path.name.endswith(".building")}
        except FileNotFoundError:
            time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    runner.end()
    return len(seen) >= number


def kill_at_change(runner: Runner, workspace: Path, change: int) -> None:
    runner.start(workspace, change)
    assert runner.end() == -signal.SIGKILL


def test_uninterrupted_runs_are_bitwise_the_same(runner: Runner, whole: tuple[Path, float, int]) -> None:
    workspace = runner.fresh()
    kill_at_change(runner, workspace, 1)  # before anything was written
    check_continued(runner, workspace, whole[0])


def test_killed_at_random_moments(runner: Runner, whole: tuple[Path, float, int]) -> None:
    workspace, draw = runner.fresh(), random.Random()
    for _ in range(2):  # one after the other, on the same workspace
        kill_after(runner, workspace, draw.uniform(0.1, 0.8) * whole[1])
        check_what_looks_finished(workspace)
    check_continued(runner, workspace, whole[0])


def test_killed_while_a_state_is_written(runner: Runner, whole: tuple[Path, float, int]) -> None:
    workspace = runner.fresh()
    assert kill_while_building(runner, workspace, "base", 3)
    check_what_looks_finished(workspace)
    assert kill_while_building(runner, workspace, "model", 2)
    check_what_looks_finished(workspace)
    check_continued(runner, workspace, whole[0])


def test_killed_between_two_changes_of_the_file_system(runner: Runner, whole: tuple[Path, float, int]) -> None:
    workspace, draw = runner.fresh(), random.Random()
    for _ in range(3):
        kill_at_change(runner, workspace, draw.randint(2, whole[2] // 4))
        check_what_looks_finished(workspace)
    check_continued(runner, workspace, whole[0])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_fifty_random_moments(runner: Runner, whole: tuple[Path, float, int]) -> None:
    draw = random.Random()
    for number in range(50):
        workspace = runner.fresh()
        if number % 10 == 9:
            kill_while_building(runner, workspace, draw.choice(("base", "model")), draw.randint(1, 6))
        else:
            kill_after(runner, workspace, draw.uniform(0, 1) * whole[1])
        check_what_looks_finished(workspace)
        check_continued(runner, workspace, whole[0])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_before_every_fifth_change(runner: Runner, whole: tuple[Path, float, int]) -> None:
    for change in range(random.randint(1, 5), whole[2] + 1, 5):
        workspace = runner.fresh()
        kill_at_change(runner, workspace, change)
        check_what_looks_finished(workspace)
        check_continued(runner, workspace, whole[0])


if __name__ == "__main__":
    serve_runs()
