"""Chains: how they are planned, what is skipped and what is done again."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest

from bottega.core import machine
from bottega.core.errors import UserError
from bottega.core.plan import Check, Cost, Plan, Specs
from bottega.core.progress import Quiet
from bottega.core.recipe import Chain, load_recipe, parse_recipe, with_overrides
from bottega.core.record import read_record
from bottega.core.schema import Config, Writes
from bottega.core.verb import Context, Result, Verb, execute

RUNS: list[str] = []


class Repeat(Writes):
    """Write a text several times."""

    source: Path
    """File, or folder that this verb wrote."""
    times: int = 1
    """How often."""
    threads: int | None = None
    """CPU threads."""


@dataclass(frozen=True)
class TextSpec:
    """A folder with a text.txt."""

    length: int
    kind: ClassVar[str] = "text"

    @classmethod
    def read(cls, path: Path) -> Self:
        file = path / "text.txt" if path.is_dir() else path
        if not file.is_file():
            raise UserError(f"{path} holds no text")
        return cls(file.stat().st_size)


def plan_repeat(config: Repeat, specs: Specs) -> Plan:
    length = config.times * specs.of(config.source, TextSpec).length
    plan = Plan("repeat", config, config.out, {"source": config.source}, produces=TextSpec(length))
    plan.cost = Cost(bytes_written=length)
    plan.checks = [Check("length", length <= 1000, f"{length} of at most 1000 bytes")]
    return plan


def run_repeat(plan: Plan, context: Context) -> Result:
    assert isinstance(plan.config, Repeat)
    RUNS.append(plan.config.out.name)
    source = plan.config.source
    text = (source / "text.txt" if source.is_dir() else source).read_text()
    (context.out / "text.txt").write_text(text * plan.config.times)
    return Result({"length": len(text) * plan.config.times})


class Look(Config):
    """Show a text."""

    source: Path
    """Folder."""


def plan_look(config: Look, specs: Specs) -> Plan:
    specs.of(config.source, TextSpec)
    return Plan("look", config, inputs={"source": config.source})


def run_look(plan: Plan, context: Context) -> Result:
    RUNS.append("look")
    return Result({"text": (plan.inputs["source"] / "text.txt").read_text()})


def verb(name: str, config: str, **more: Any) -> Verb:
    return Verb(name, name, f"{__name__}:{config}", f"{__name__}:plan_{name}", f"{__name__}:run_{name}", **more)


REGISTRY = {
    "repeat": verb("repeat", "Repeat"),
    "look": verb("look", "Look"),
    "serve": Verb("serve", "serve", "", "", "", step=False),
}
CHAIN = """
name: chain
parameters: {text: none, often: 2}
steps:
  first: {verb: repeat, source: "${text}", times: "${often}"}
  second: {verb: repeat, source: "${first}", times: 3}
  third: {verb: repeat, source: "${second}"}
"""


@pytest.fixture
def text(tmp_path: Path) -> Path:
    RUNS.clear()
    path = tmp_path / "input.txt"
    path.write_text("ab")
    return path


def chain(text: Path, *overrides: str, recipe: str = CHAIN) -> Chain:
    parsed = parse_recipe(recipe, "chain.yaml")
    given = (f"text={text}", *overrides) if "text" in parsed.parameters else overrides
    return Chain(with_overrides(parsed, given), text.parent / "w", REGISTRY)


def ran(made: Chain) -> list[str]:
    RUNS.clear()
    made.run(Quiet())
    return list(RUNS)


def test_a_chain_is_planned_before_anything_exists_and_planning_writes_nothing(text: Path) -> None:
    steps = chain(text).plan()
    assert [step.plan.produces for step in steps] == [TextSpec(4), TextSpec(12), TextSpec(12)]
    assert not any(step.done for step in steps)
    assert list(text.parent.iterdir()) == [text]


def test_a_second_run_does_nothing(text: Path) -> None:
    assert ran(chain(text)) == ["first", "second", "third"]
    folder = text.parent / "w" / "chain"
    assert (folder / "third" / "text.txt").read_text() == "ab" * 6
    assert ran(chain(text)) == []
    assert all(step.done for step in chain(text).plan())
    assert sorted(path.name for path in folder.iterdir()) == ["first", "second", "third"]


def test_what_is_done_is_planned_once(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran(chain(text))
    plans: list[str] = []
    monkeypatch.setattr(
        Chain, "_plan_step", lambda *given, old=Chain._plan_step: (plans.append(given[1]), old(*given))[1]
    )
    made = chain(text)
    made.run(Quiet(), planned=made.plan())
    assert plans == ["first", "second", "third"]


def test_what_changed_between_plan_and_run_is_seen(text: Path) -> None:
    ran(chain(text))
    made = chain(text)
    planned = made.plan()
    shutil.rmtree(made.folder / "second")
    RUNS.clear()
    made.run(Quiet(), planned=planned)
    assert RUNS == ["second"]


def test_a_changed_setting_redoes_this_step_and_later_ones(text: Path) -> None:
    ran(chain(text))
    assert ran(chain(text, "second.times=4")) == ["second", "third"]
    assert ran(chain(text, "second.times=4")) == []
    assert [step.done for step in chain(text, "often=3").plan()] == [False, False, False]
    assert ran(chain(text, "often=3", "second.times=4")) == ["first", "second", "third"]


def test_the_plan_says_which_finished_steps_will_be_replaced(text: Path) -> None:
    def replaced(*overrides: str) -> list[str]:
        return [step.replaces for step in chain(text, *overrides).plan()]

    assert replaced() == ["no", "no", "no"]
    ran(chain(text))
    assert replaced() == ["no", "no", "no"]
    assert replaced("third.times=2") == ["no", "no", "yes"]
    assert replaced("often=3") == ["yes", "maybe", "maybe"]
    shutil.rmtree(text.parent / "w" / "chain" / "first")
    assert replaced() == ["no", "maybe", "maybe"]
    text.write_text("cd")
    assert replaced("second.times=2") == ["no", "maybe", "maybe"]


def test_a_step_whose_input_came_out_the_same_is_not_redone(text: Path) -> None:
    ran(chain(text))
    text.write_text("a" + "b")  # the same content at a later time
    assert ran(chain(text)) == []


def test_what_cannot_change_the_outcome_redoes_nothing(text: Path) -> None:
    ran(chain(text))
    assert ran(chain(text, "repeat.threads=3")) == []
    moved = text.parent / "moved.txt"
    text.rename(moved)
    assert ran(chain(moved)) == []  # an input counts by its content


def test_a_changed_input_redoes_everything_after_it(text: Path) -> None:
    ran(chain(text))
    text.write_text("cd")
    assert ran(chain(text)) == ["first", "second", "third"]


def test_another_version_of_a_verb_redoes_its_steps(text: Path) -> None:
    ran(chain(text))
    made = chain(text)
    made.registry = {**REGISTRY, "repeat": verb("repeat", "Repeat", version=2)}
    assert ran(made) == ["first", "second", "third"]


def test_a_tampered_or_missing_output_is_made_again(text: Path) -> None:
    ran(chain(text))
    file = text.parent / "w" / "chain" / "second" / "text.txt"
    file.unlink()
    assert ran(chain(text)) == ["second"]  # and its content is what the third was made from
    file.write_text("x" * 12)
    moment = time.time_ns() + 10**9
    os.utime(file, ns=(moment, moment))
    assert ran(chain(text)) == ["second"]
    shutil.rmtree(file.parent)
    assert ran(chain(text)) == ["second"]
    assert ran(chain(text)) == []


def test_what_an_interrupted_run_left_beside_a_finished_step_is_removed(text: Path) -> None:
    ran(chain(text))
    folder = text.parent / "w" / "chain"
    (folder / "first.partial").mkdir()
    (folder / ".first.replaced").mkdir()
    assert ran(chain(text)) == []
    assert sorted(path.name for path in folder.iterdir()) == ["first", "second", "third"]


def test_a_run_that_lacked_only_its_last_rename_is_finished(text: Path) -> None:
    ran(chain(text))
    folder = text.parent / "w" / "chain"
    (folder / "third").rename(folder / "third.partial")
    assert ran(chain(text)) == []
    assert (folder / "third" / "text.txt").is_file() and not (folder / "third.partial").exists()
    (folder / "third").rename(folder / "third.partial")
    (folder / "third.partial" / "text.txt").write_text("cut")
    assert ran(chain(text)) == ["third"]


def test_a_failed_check_in_a_late_step_stops_before_the_first_one_runs(text: Path) -> None:
    with pytest.raises(UserError, match="length: 2400 of at most 1000"):
        chain(text, "third.times=200").run(Quiet())
    assert RUNS == [] and not (text.parent / "w" / "chain").exists()


def test_the_disk_needs_room_for_all_steps_that_are_to_be_done(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "disk_free", lambda folder: 20)  # 4, 12 and 12 bytes are to be written
    with pytest.raises(UserError, match="disk: writes 12 B after 16 B of earlier steps, 20 B free"):
        chain(text).run(Quiet())
    assert RUNS == []
    monkeypatch.setattr(machine, "disk_free", lambda folder: 28)
    ran(chain(text))
    monkeypatch.setattr(machine, "disk_free", lambda folder: 12)
    assert ran(chain(text, "third.times=1")) == []
    shutil.rmtree(text.parent / "w" / "chain" / "third")
    assert ran(chain(text)) == ["third"]


def test_a_check_of_a_step_that_is_done_stops_nothing(text: Path) -> None:
    ran(chain(text, "second.times=100"))
    plan = REGISTRY["repeat"].plan
    strict = Verb(
        "repeat", "", REGISTRY["repeat"].config, plan.replace("plan_repeat", "plan_strictly"), REGISTRY["repeat"].run
    )
    made = chain(text, "second.times=100")
    made.registry = {**REGISTRY, "repeat": strict}
    assert ran(made) == []


def plan_strictly(config: Repeat, specs: Specs) -> Plan:
    """As on a day on which less memory is free."""
    plan = plan_repeat(config, specs)
    plan.checks = [Check("memory", False, "none is free")]
    return plan


def test_a_failing_step_leaves_nothing_and_keeps_what_was_done(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = chain(text)

    def fail(plan: Plan, context: Context) -> Result:
        if plan.config.as_data()["times"] == 3:
            (context.out / "half").touch()
            raise OSError("the disk is full")
        return run_repeat(plan, context)

    monkeypatch.setattr(f"{__name__}.run_repeat_or_fail", fail, raising=False)
    broken = Verb("repeat", "", *(f"{__name__}:{part}" for part in ("Repeat", "plan_repeat", "run_repeat_or_fail")))
    made.registry = {"repeat": broken}
    with pytest.raises(OSError, match="disk is full"):
        made.run(Quiet())
    assert [path.name for path in made.folder.iterdir()] == ["first"]
    assert ran(chain(text)) == ["second", "third"]


def test_records_say_what_was_made_of_what(text: Path) -> None:
    ran(chain(text))
    folder = text.parent / "w" / "chain"
    first, second = read_record(folder / "first"), read_record(folder / "second")
    assert first is not None and second is not None
    assert second.inputs["source"] == {"path": str(folder / "first"), "sha256": first.content_hash}
    assert second.metrics == {"length": 12} and second.started and second.environment["versions"]


def test_a_step_may_write_elsewhere_and_later_ones_find_it(text: Path) -> None:
    elsewhere = text.parent / "elsewhere"
    made = chain(text, f"first.out={elsewhere}")
    assert ran(made) == ["elsewhere", "second", "third"]
    assert (elsewhere / "text.txt").is_file() and not (made.folder / "first").exists()
    assert ran(chain(text, f"first.out={elsewhere}")) == []
    with pytest.raises(UserError, match="exists already"):  # only below its own folder a recipe replaces
        chain(text, f"first.out={elsewhere}", "often=5").run(Quiet())
    assert ran(chain(text, f"first.out={elsewhere}", "often=5", "first.overwrite=true")) == [
        "elsewhere", "second", "third",
    ]  # fmt: skip
    with pytest.raises(UserError, match="as an earlier step does"):
        chain(text, f"first.out={elsewhere}", f"third.out={elsewhere}").plan()


def test_a_step_writes_neither_into_nor_around_nor_over_what_it_reads(text: Path) -> None:
    made = chain(text)
    ran(made)
    third, inside = made.folder / "third", made.folder / "second" / "deep"
    config = Repeat(source=third, out=third, overwrite=True)
    (check,) = [each for each in REGISTRY["repeat"].make_plan(config, Specs()).checks if each.name == "out"]
    assert not check.passed and "is the source" in check.detail
    with pytest.raises(UserError, match=r" is the source .*, which is read for it"):
        execute(REGISTRY["repeat"], plan_repeat(config, Specs()), Quiet())
    with pytest.raises(UserError, match=r"step third writes .*, second "):
        chain(text, f"third.out={inside}").plan()
    with pytest.raises(UserError, match=r"out: .* is the source .*, which is read for it"):
        chain(text, f"first.out={text}").run(Quiet())
    assert (made.folder / "third" / "text.txt").read_text() == "ab" * 6 and text.read_text() == "ab"


def test_a_folder_that_is_no_artefact_is_never_replaced(text: Path) -> None:
    mine = text.parent / "w" / "chain" / "first"
    mine.mkdir(parents=True)
    (mine / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not replaced"):
        chain(text).run(Quiet())
    assert (mine / "notes.txt").read_text() == "mine"


def test_a_step_that_writes_nothing_runs_each_time_and_cannot_be_named(text: Path) -> None:
    looking = CHAIN + '  seen: {verb: look, source: "${third}"}\n'
    assert ran(chain(text, recipe=looking)) == ["first", "second", "third", "look"]
    assert ran(chain(text, recipe=looking)) == ["look"]
    with pytest.raises(UserError, match=r"refers to .*seen.*, but that step writes nothing"):
        chain(text, recipe=looking + '  more: {verb: repeat, source: "${seen}"}\n').plan()


def test_a_missing_input_is_a_message(text: Path) -> None:
    ran(chain(text))
    text.unlink()
    with pytest.raises(UserError, match="holds no text"):
        chain(text).plan()


@pytest.mark.parametrize(
    ("body", "message", "hint"),
    [
        ("steps: {a: {verb: repeat, source: '${b}'}, b: {verb: repeat, source: x}}", "refers to ${b}", ""),
        ("steps: {a: {verb: repeat, source: '${a}'}}", "refers to ${a}", ""),
        ("parameters: {size: 1}\nsteps: {a: {verb: repeat, source: '${sise}'}}", "refers to ${sise}", "'size'"),
        ("steps: {a: {verb: serve, source: x}}", "serve cannot be a step", ""),
        ("steps: {a: {verb: repaet, source: x}}", "unknown verb 'repaet'", "'repeat'"),
        ("steps: {a: {verb: repeat, sorce: x}}", "unknown setting 'sorce'", "'source'"),
    ],
)
def test_what_a_chain_refuses(text: Path, body: str, message: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        chain(text, recipe=body).plan()
    assert message in caught.value.message and hint in caught.value.hint
    assert list(text.parent.iterdir()) == [text]


def test_a_reference_alone_keeps_its_type_and_null_means_the_default(text: Path) -> None:
    body = (
        "parameters: {often: 2, nothing: null, name: input}\n"
        f"steps: {{a: {{verb: repeat, source: '{text.parent}/${{name}}.txt', "
        "times: '${often}', threads: '${nothing}'}}"
    )
    parsed = parse_recipe(body, "x.yaml")
    (step,) = Chain(parsed, text.parent / "w", REGISTRY).plan()
    assert step.plan.config == Repeat(out=text.parent / "w" / "x" / "a", source=text, times=2)


def test_a_file_of_one_step_is_a_recipe_of_that_step(text: Path) -> None:
    out = text.parent / "out"
    file = text.parent / "one.yaml"
    file.write_text(f"verb: repeat\nsource: {text}\ntimes: 2\nout: {out}\n")
    assert ran(Chain(load_recipe(str(file)), text.parent / "w", REGISTRY)) == ["out"]
    by_recipe = read_record(out)
    config = Repeat.parse({"source": str(text), "times": 2, "out": str(text.parent / "again")})
    execute(REGISTRY["repeat"], plan_repeat(config, Specs()), Quiet())
    by_verb = read_record(text.parent / "again")
    assert by_recipe is not None and by_verb is not None
    assert by_recipe.step_hash == by_verb.step_hash and by_recipe.content_hash == by_verb.content_hash
    file.write_text(f"verb: repeat\nsource: {text}\n")
    assert ran(Chain(load_recipe(str(file)), text.parent / "w", REGISTRY)) == ["repeat"]
    assert (text.parent / "w" / "one" / "repeat" / "record.json").is_file()
