"""A verb: one public function of one room, one command, one step of a recipe.

Its life is parse → plan → run → record; `execute` is the last two. The registry in
`bottega.verbs` names each verb's parts as text, so that listing the verbs imports nothing.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega.core import atomic
from bottega.core.errors import UserError, did_you_mean
from bottega.core.hashing import NOT_CONTENT, digest_data, digest_path
from bottega.core.place import place_checks, require_apart, require_free
from bottega.core.ranks import follows
from bottega.core.record import Record, current_hash, environment, has_record, input_entry, now, read_record
from bottega.core.workspace import writing_in

if TYPE_CHECKING:  # the registry imports this module, and `bottega --help` the registry
    from bottega.core.plan import Plan, Specs
    from bottega.core.progress import Reporter
    from bottega.core.schema import Config
    from bottega.core.view import Block

# Settings that say where or how to run, and cannot change what comes out.
NOT_IN_HASH = frozenset({"out", "overwrite", "threads", "device"})


@dataclass
class Result:
    """What a verb found or made: `data` for `--json` and the record, `view` for people.

    `exit_status` is that of the command: not 0 where a check found what a script must not pass over.
    """

    data: dict[str, Any] = field(default_factory=dict)
    view: list[Block] = field(default_factory=list)
    exit_status: int = 0


@dataclass(frozen=True)
class Context:
    """What `run` may use beside its plan.

    `folder` is where to write (the `.partial` of the plan's `out`); `resumed` says that it
    holds what an interrupted run of the same step left.
    """

    reporter: Reporter
    folder: Path | None = None
    resumed: bool = False
    record_of: Callable[[dict[str, Any]], Record] | None = None

    @property
    def out(self) -> Path:
        """The folder to write into; only for verbs that write."""
        if self.folder is None:
            raise AssertionError("this verb writes nothing")
        return self.folder

    @property
    def work(self) -> Path:
        """Where a restartable verb keeps what it goes on from; it is no part of the result."""
        folder = self.out / atomic.WORK_FOLDER
        folder.mkdir(exist_ok=True)
        return folder

    def record(self, metrics: dict[str, Any]) -> Record:
        """The record as it will be written with these metrics (a model card is a view of it)."""
        if self.record_of is None:
            raise AssertionError("this verb writes nothing")
        return self.record_of(metrics)


@dataclass(frozen=True)
class Verb:
    """One entry of the registry. `config`, `plan` and `run` are 'module:name'."""

    name: str
    summary: str
    config: str
    plan: str
    run: str
    version: int = 1
    restartable: bool = False
    """Whether `run` goes on from what an interrupted run left in its folder; else it is given an empty one."""
    report: str = ""
    """'module:name' of a function from the written folder to the blocks that a report shows of it."""
    arguments: tuple[str, ...] = ()
    """Settings that the command line takes by position."""
    shared: bool = False
    """Whether processes that torchrun started may share its run; else only the first one may."""
    step: bool = True
    """Whether a recipe may have it as a step (servers and chats are none)."""
    foreign: str = ""
    """'module:function' that reads another program's file: plain data → `core.foreign.Foreign`, None if it is none."""

    def config_type(self) -> type[Config]:
        """The verb's config model."""
        return load(self.config)

    def make_plan(self, config: Config, specs: Specs, *, may_replace: bool | None = None, reserved: int = 0) -> Plan:
        """Check everything that can be checked from headers, and what holds for every verb that writes.

        `may_replace` says whether an artefact at OUT may be replaced (default: the setting `overwrite`),
        `reserved` how many bytes earlier steps of a chain will have written by then.
        """
        plan: Plan = load(self.plan)(config, specs)
        plan.checks += place_checks(plan, overwrites(config) if may_replace is None else may_replace, reserved)
        return plan


def load(reference: str) -> Any:
    """'package.module:name' → the object."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def find_verb(registry: Mapping[str, Verb], name: str) -> Verb:
    """The verb called `name`; raises UserError with the nearest one."""
    if name not in registry:
        raise UserError(f"unknown verb {name!r}", hint=did_you_mean(name, registry))
    return registry[name]


def step_hash(verb: Verb, plan: Plan) -> str:
    """Hash of what determines the outcome: verb, its version, settings, and the inputs' contents."""
    inputs = {name: input_entry(path)["sha256"] for name, path in plan.inputs.items()}
    # An input counts by its content, not by where it lies: its own setting is left out.
    left_out = NOT_IN_HASH | plan.config.without_effect | {name.partition(".")[0] for name in inputs}
    settings = {key: value for key, value in plan.config.as_data().items() if key not in left_out}
    return digest_data([verb.name, verb.version, settings, inputs, _resolved(plan)])


def is_done(verb: Verb, plan: Plan) -> bool:
    """Whether `plan.out` already holds the finished, untouched result of this very step."""
    if plan.out is None or not has_record(plan.out):
        return False
    record = read_record(plan.out)
    if record is None or record.verb != verb.name or not all(path.exists() for path in plan.inputs.values()):
        return False
    return record.step_hash == step_hash(verb, plan) and record.content_hash == current_hash(plan.out, record)


def overwrites(config: Config) -> bool:
    """Whether the settings say that what stands at OUT may be replaced."""
    return bool(getattr(config, "overwrite", False))


def execute(verb: Verb, plan: Plan, reporter: Reporter, *, overwrite: bool | None = None) -> Result:
    """Run a plan whose checks pass, and record it; what it writes appears only when complete."""
    plan.require()
    for check in plan.checks:
        if check.warns and not follows():
            reporter.say(f"{check.name}: {check.detail}")
    run: Callable[[Plan, Context], Result] = load(verb.run)
    if plan.out is None:
        return run(plan, Context(reporter))
    if follows():
        return _follow(verb, plan, run)
    allowed = overwrites(plan.config) if overwrite is None else overwrite
    require_apart(plan.out, plan.inputs)
    require_free(plan.out, allowed)
    plan.out.parent.mkdir(parents=True, exist_ok=True)
    with writing_in(plan.out) or nullcontext(), atomic.building(plan.out) as folder:
        require_free(plan.out, allowed)  # another process may have made it since
        hash_ = step_hash(verb, plan)
        found = _finished_before(folder, hash_)
        if found is not None:
            atomic.finish_folder(folder, plan.out)
            return Result(found.metrics)
        resumed = atomic.begin_folder(folder, hash_, restartable=verb.restartable)
        record_of = _recorder(verb, plan, hash_)
        try:
            result = run(plan, Context(reporter, folder, resumed, record_of))
        except BaseException:
            if not verb.restartable:
                atomic.discard(folder)
            raise
        record_of(result.data).write(folder)
        atomic.finish_folder(folder, plan.out)
    return result


def _follow(verb: Verb, plan: Plan, run: Callable[[Plan, Context], Result]) -> Result:
    """Compute for the first process, which holds the folder, speaks and records."""
    from bottega.core.progress import Quiet

    if not verb.shared:
        raise UserError(f"{verb.name} is the work of one process", hint="Start it without torchrun.")
    assert plan.out is not None
    return run(plan, Context(Quiet(), atomic.partial_path(plan.out)))


def _finished_before(folder: Path, hash_: str) -> Record | None:
    """The record of an unfinished folder that lacks nothing but its last rename."""
    try:
        record = read_record(folder)
    except UserError:
        return None
    if record is None or record.step_hash != hash_ or record.content_hash != digest_path(folder, NOT_CONTENT):
        return None
    return record


def _resolved(plan: Plan) -> dict[str, Any]:
    """What the plan found out about settings left open, as far as it decides the outcome."""
    return {key: plan.details[key] for key in ("dtype", "environment") if key in plan.details}


def _recorder(verb: Verb, plan: Plan, hash_: str) -> Callable[[dict[str, Any]], Record]:
    """A function from metrics to the record of this run; its clock starts now."""
    started, clock = now(), time.monotonic()
    inputs = {name: input_entry(path) for name, path in plan.inputs.items()}

    def record_of(metrics: dict[str, Any]) -> Record:
        return Record(
            verb=verb.name,
            verb_version=verb.version,
            step_hash=hash_,
            config=plan.config.as_data(),
            inputs=inputs,
            metrics=metrics,
            environment=environment() | _resolved(plan),
            started=started,
            seconds=round(time.monotonic() - clock, 3),
        )

    return record_of


def report_of(verb: Verb, folder: Path) -> list[Block]:
    """What a report shows of a finished step."""
    return load(verb.report)(folder) if verb.report else []
