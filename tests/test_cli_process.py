"""The command as a process: how fast it starts, what it imports, Ctrl-C, closed pipes, completion."""

from __future__ import annotations

import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bottega import verbs
from bottega.core import machine
from bottega.core.atomic import WORK_FOLDER, partial_path
from conftest import Workshop

BOTTEGA = [sys.executable, "-m", "bottega"]
HEAVY = ("torch", "pydantic", "numpy", "yaml", "rich", "tokenizers", "safetensors", "fastapi", "pyarrow")


def imported(code: str) -> list[str]:
    """The heavy packages that `code` imports."""
    check = f"{code}\nimport sys\nprint([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    return eval(found.stderr.strip().splitlines()[-1])


@pytest.mark.parametrize("code", ["import bottega", "import bottega.verbs", "import bottega.cli.main"])
def test_importing_is_light(code: str) -> None:
    assert imported(code) == []


def test_help_imports_nothing_heavy_and_is_fast() -> None:
    code = (
        "import sys; sys.argv = ['bottega', '--help']\n"
        "from bottega.cli.main import main\ntry: main()\nexcept SystemExit: pass"
    )
    assert imported(code) == []
    for words in ([*BOTTEGA, "--help"], [sys.executable, "-c", "import bottega"]):
        seconds = []
        for _ in range(5):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(words, capture_output=True, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            # Processor time: other work on the machine takes none of it.
            seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert statistics.median(seconds) < 0.3, seconds


def test_planning_to_train_needs_no_torch_beyond_the_rates(workshop: Workshop) -> None:
    """A setting that is wrong is said before torch is imported."""
    code = (
        "import sys; sys.argv = ['bottega', 'train', 'data=x', 'out=y', 'tokenizer=z', 'learnin_rate=1']\n"
        "from bottega.cli.main import main\ntry: main()\nexcept SystemExit as e: assert e.code == 2"
    )
    assert "torch" not in imported(code)


def test_a_recipe_with_nothing_to_do_loads_no_torch(workshop: Workshop, tmp_path: Path) -> None:
    """Estimating and choosing a device must not need it, once the machine's rates are known."""
    recipe, tokens, tokenizer = tmp_path / "mine.yaml", workshop.tokens, workshop.tokenizer
    recipe.write_text(
        f"steps:\n  text: {{verb: data prepare, data: {workshop.corpus}, tokenizer: {tokenizer}}}\n"
        f"  base: {{verb: train, data: {tokens}, tokenizer: {tokenizer}, layers: 1, hidden_size: 64, tokens: 256,"
        f" row_length: 64, tokens_per_step: 256, device: {'auto' if machine._is_cpu_alone() else 'cpu'}}}\n"
    )
    words = ["bottega", "run", str(recipe), "--workspace", str(tmp_path / "w"), "--quiet"]
    code = (
        f"import sys; sys.argv = {words}\n"
        "from bottega.cli.main import main\ntry: main()\nexcept SystemExit as e: assert not e.code"
    )
    assert "torch" in imported(code)
    assert "torch" not in imported(code)


def train_command(workshop: Workshop, out: Path, steps: int) -> list[str]:
    settings = {
        "data": workshop.tokens, "tokenizer": workshop.tokenizer, "out": out, "layers": 1, "hidden_size": 64,
        "row_length": 64, "tokens_per_step": 256, "tokens": 256 * steps, "save_every": 5, "threads": 1,
        "dtype": "float32",
    }  # fmt: skip
    return [*BOTTEGA, "train", *(f"{name}={value}" for name, value in settings.items())]


def test_ctrl_c_in_training_is_friendly_and_the_same_command_goes_on(workshop: Workshop, tmp_path: Path) -> None:
    out = tmp_path / "model"
    words = train_command(workshop, out, 1500)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list((partial_path(out) / WORK_FOLDER).glob("state-*[0-9]")):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    printed, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert "stopped; what was finished is kept, the same command goes on from there" in said
    assert "Traceback" not in said and printed == "" and not out.exists()
    state = max(path.name for path in (partial_path(out) / WORK_FOLDER).glob("state-*[0-9]"))
    # The rest would take a while; that it goes on from there is what matters.
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = process.stderr.readline()
    process.kill()
    process.communicate()
    assert line == f"going on after step {int(state.removeprefix('state-'))} of 1500\n"


def test_the_command_and_the_python_api_make_the_same_model(workshop: Workshop, tmp_path: Path) -> None:
    words = train_command(workshop, tmp_path / "one", 6)
    subprocess.run(words, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    verbs.train(
        data=workshop.tokens, tokenizer=workshop.tokenizer, out=tmp_path / "two", layers=1, hidden_size=64,
        row_length=64, tokens_per_step=256, tokens=256 * 6, save_every=5, threads=1, dtype="float32",
    )  # fmt: skip
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_reader_that_goes_away_is_no_failure() -> None:
    process = subprocess.Popen(
        [*BOTTEGA, "recipes", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(30) in (0, 1) and said == ""


def test_completion_knows_verbs_and_their_options() -> None:
    def completions(words: str) -> list[str]:
        last = str(len(words.split()) - 1)
        environment = {**os.environ, "_BOTTEGA_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": last}
        code = "import sys; sys.argv = ['bottega']\nfrom bottega.cli.main import main\nmain()"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        return found.stdout.split()

    assert "tokenizer" in completions("bottega tok")
    assert "--learning-rate" in completions("bottega train --learn")
