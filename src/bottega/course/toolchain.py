"""The toolchain's verbs as labs call them: the same parse, plan, run and record as on the command line.

The registry of verbs stands on a floor above the course, so the few verbs that chapters run are named here once more.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bottega.core.plan import Specs
from bottega.core.progress import Quiet, Reporter
from bottega.core.verb import Result, Verb, execute

_PARTS = {
    "train": "bottega.train.config:Train bottega.train.plan:plan_train bottega.train.run:run_train",
    "tokenizer train": "bottega.tokenizer.config:TrainTokenizer bottega.tokenizer.train_verb:plan_train "
    "bottega.tokenizer.train_verb:run_train",
    "eval": "bottega.evaluate.config:EvaluateModel bottega.evaluate.plan:plan_evaluate "
    "bottega.evaluate.run:run_evaluate",
    "adapter merge": "bottega.model.merge_adapter:MergeAdapter bottega.model.merge_adapter:plan_merge "
    "bottega.model.merge_adapter:run_merge",
}


def run_verb(name: str, settings: Mapping[str, Any], reporter: Reporter | None = None) -> Result:
    """Run `bottega NAME` with `settings`, as a recipe's step would; raises UserError."""
    config, plan, run = _PARTS[name].split()
    verb = Verb(name, "", config=config, plan=plan, run=run, restartable=name == "train", shared=name == "train")
    return execute(verb, verb.make_plan(verb.config_type().parse(settings), Specs()), reporter or Quiet())


def follow_training(settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Run `bottega train` and yield the rows of its metrics.jsonl as they come; raises what the run raises."""
    failed: list[BaseException] = []

    def work() -> None:
        try:
            run_verb("train", settings)
        except BaseException as error:  # it belongs to the thread that follows
            failed.append(error)

    out = Path(settings["out"])
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    seen = 0
    while thread.is_alive():
        thread.join(0.05)
        rows = _rows(out.with_name(out.name + ".partial")) if thread.is_alive() else _rows(out)
        yield from rows[seen:]
        seen = max(seen, len(rows))
    if failed:
        raise failed[0]
    yield from _rows(out)[seen:]


def _rows(folder: Path) -> list[dict[str, Any]]:
    """The complete rows of a run's metrics so far."""
    with contextlib.suppress(FileNotFoundError):
        text = (folder / "metrics.jsonl").read_text("utf-8")
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return []


