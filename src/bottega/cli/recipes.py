"""`bottega run` and `bottega recipes`."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bottega.cli.commands import DEBUG, JSON, PLAN, QUIET, foreign_settings, handled, reporter_for

if TYPE_CHECKING:
    from rich.console import Console

    from bottega.core.recipe import Recipe, Step
    from bottega.core.verb import Verb

WORKSPACE = Annotated[
    Path | None, typer.Option(help="Where the steps' folders go [default: $BOTTEGA_WORKSPACE or ./workspace].")
]
# They mean the same everywhere: here, for every step that has them.
THREADS = Annotated[int | None, typer.Option(help="CPU threads of every step (default: as many as there are cores).")]
SEED = Annotated[int | None, typer.Option(help="Seed of every step that draws.")]
DEVICE = Annotated[str | None, typer.Option(help="Where every step computes: auto, cpu, cuda or mps.")]
DTYPE = Annotated[str | None, typer.Option(help="Precision of every step.")]
EXTRA = {"allow_extra_args": True, "ignore_unknown_options": True}


def add_to(app: typer.Typer) -> None:
    """Add `run` and the group `recipes`."""
    app.command("run", context_settings=EXTRA, help=run.__doc__)(run)
    group = typer.Typer(help="List, copy and describe recipes.", no_args_is_help=True, rich_markup_mode=None)
    group.command("list", help=list_recipes.__doc__)(list_recipes)
    group.command("copy", help=copy_recipe.__doc__)(copy_recipe)
    group.command("schema", help=print_schema.__doc__)(print_schema)
    app.add_typer(group, name="recipes")


def run(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A recipe's name (bottega recipes list) or YAML file.")],
    workspace: WORKSPACE = None,
    threads: THREADS = None,
    seed: SEED = None,
    device: DEVICE = None,
    dtype: DTYPE = None,
    plan: PLAN = False,
    json: JSON = False,
    debug: DEBUG = False,
    quiet: QUIET = False,
) -> None:
    """Run a recipe's steps that are not done yet, and write its report.

    A recipe's parameters are options (--size tiny); single settings are STEP.NAME=VALUE, or VERB.NAME=VALUE
    for every step of that verb. What is within a section is STEP.SECTION.NAME=VALUE.
    """
    with handled(debug) as console:
        from bottega.core.errors import UserError
        from bottega.core.plan import only_planning
        from bottega.core.recipe import Chain, require_all
        from bottega.core.workspace import workspace_path
        from bottega.verbs.registry import VERBS

        if recipe.startswith("-"):
            raise UserError("no recipe is named", hint="Name it first: bottega run RECIPE " + recipe + " …")
        common = {"threads": threads, "seed": seed, "device": device, "dtype": dtype}
        words = [*context.args, *(f"--{name}={value}" for name, value in common.items() if value is not None)]
        chosen = _with_arguments(_recipe_of(recipe, VERBS, show_all=plan), words, common, VERBS)
        chain = Chain(chosen, workspace_path(workspace), VERBS)
        with only_planning() if plan else contextlib.nullcontext():
            planned = chain.plan()
        advice = _advice(planned, chosen, [recipe, *words, *([f"--workspace={workspace}"] if workspace else [])])
        if plan:
            _show_plan(planned, chosen, advice, as_json=json)
            return
        require_all(planned)
        if not quiet:
            _say(advice, console)
        steps = chain.run(reporter_for(console, quiet), None if quiet else _announcer(console), planned)
        _finish(chain, steps, console, as_json=json)


def _recipe_of(name: str, registry: Mapping[str, Verb], *, show_all: bool) -> Recipe:
    """A recipe by name or file; the file of another program that a verb reads is a recipe of that one step."""
    from dataclasses import replace

    from bottega.core.recipe import load_recipe, recipe_from
    from bottega.core.schema import read_yaml

    path = Path(name)
    data = read_yaml(path) if path.suffix in (".yaml", ".yml") and path.is_file() else None
    if isinstance(data, dict) and not data.keys() & {"steps", "verb"}:
        for verb in registry.values():
            settings = foreign_settings(verb, data, path, show_all)
            if settings is not None:
                return replace(recipe_from({"verb": verb.name, **settings}, name), folder=path.parent)
    return load_recipe(name)


def list_recipes() -> None:
    """The recipes that come with bottega."""
    with handled(False):
        from rich.console import Console

        from bottega.cli.render import show
        from bottega.core.recipe import parse_recipe, shipped_recipes
        from bottega.core.view import Table

        parsed = [parse_recipe(text, name) for name, text in shipped_recipes().items()]
        rows = [
            (r.name, r.description.partition("\n")[0], " ".join(_shown(*item) for item in r.parameters.items()))
            for r in parsed
        ]
        show([Table("Recipes", ("name", "what it does", "parameters"), rows)], Console())


def _shown(name: str, value: Any) -> str:
    """A parameter with its default; its name in capitals for what the recipe makes or brings itself."""
    return f"--{name} {name.upper() if '${' in str(value) else value}"


def copy_recipe(
    name: Annotated[str, typer.Argument(help="The recipe's name.")],
    to: Annotated[Path | None, typer.Argument(help="The file to write [default: NAME.yaml].")] = None,
) -> None:
    """Copy a recipe into a file, to change it, and the examples that it uses into a folder beside it."""
    with handled(False) as console:
        from bottega.core.atomic import write_text
        from bottega.core.errors import UserError, did_you_mean
        from bottega.core.recipe import examples_of, shipped_folder, shipped_recipes

        shipped = shipped_recipes()
        if name not in shipped:
            raise UserError(f"no recipe {name!r}", hint=did_you_mean(name, shipped))
        path = to or Path(f"{name}.yaml")
        if path.exists():
            raise UserError(f"{path} exists already", hint="Give another name.")
        examples = [path.parent / example for example in examples_of(shipped[name])]
        kept = [place for place in examples if place.exists()]  # it may have been changed on purpose
        for place in examples:
            if place not in kept:
                place.parent.mkdir(parents=True, exist_ok=True)
                write_text(place, (shipped_folder() / place.relative_to(path.parent)).read_text("utf-8"))
        write_text(path, shipped[name])
        lines = [f"written: {place}" for place in (path, *examples) if place not in kept]
        lines += [f"kept as it was: {place}" for place in kept]
        command = shlex.join(["bottega", "run", str(path)])
        _say([*lines, f"next: {command} --plan   (what it will do and take; without --plan it runs)"], console)


def print_schema() -> None:
    """The JSON Schema of recipes, for editors."""
    with handled(False):
        from bottega.cli.render import show_json
        from bottega.verbs.recipe_schema import recipe_schema

        show_json(recipe_schema())


def _with_arguments(recipe: Recipe, words: list[str], common: Iterable[str], registry: Mapping[str, Verb]) -> Recipe:
    """`--size tiny`, `--size=tiny`, and `step.setting=value` or `--step.setting value`.

    The `common` settings go to every step that has them.
    """
    from bottega.core.errors import UserError
    from bottega.core.recipe import with_overrides, with_parameters, with_setting
    from bottega.core.schema import parse_scalar

    parameters: dict[str, Any] = {}
    overrides: list[str] = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("--"):
            if "=" not in word:
                raise UserError(f"{word!r} is neither an option nor NAME=VALUE")
            overrides.append(word)
            continue
        name, separator, value = word[2:].partition("=")
        if not separator:
            value = next(rest, None)
            if value is None:
                raise UserError(f"--{name} needs a value")
        if "." in name:
            overrides.append(f"{name}={value}")
            continue
        name = name.replace("-", "_")
        # What is text by default stays text: a folder may be called `2024` or `notes #1`.
        parameters[name] = value if isinstance(recipe.parameters.get(name), str) else parse_scalar(value)
    for name in [name for name in common if name in parameters and name not in recipe.parameters]:
        recipe = with_setting(recipe, registry, name, parameters.pop(name))
    return with_overrides(with_parameters(recipe, parameters), overrides)


def _show_plan(steps: list[Step], recipe: Recipe, advice: list[str], *, as_json: bool) -> None:
    from rich.console import Console

    from bottega.cli.render import show, show_json
    from bottega.core.recipe import require_all
    from bottega.core.view import Table, Text, human_bytes, human_seconds

    if as_json:
        show_json(
            [{"step": step.name, "done": step.done, "replaces": step.replaces, **step.plan.as_data()} for step in steps]
        )
    else:
        rows, blocks = [], []
        for step in steps:
            cost = step.plan.cost
            memory = human_bytes(cost.peak_memory) if cost.peak_memory else "–"
            seconds = "done" if step.done else human_seconds(cost.seconds) if cost.seconds is not None else "?"
            rows.append((step.name, step.verb.name, "; ".join(step.plan.work), seconds, memory))
            blocks += [
                Text(f"{step.name}: {check.name} FAILS: {check.detail}")
                for check in step.plan.checks
                if not check.passed and not step.done
            ]
        table = Table(f"Plan of {recipe.name}", ("step", "verb", "work", "time", "memory"), rows)
        show([table, *blocks], Console())
        _say(advice, Console())
    require_all(steps)


def _advice(steps: list[Step], recipe: Recipe, words: list[str]) -> list[str]:
    """What to know before it starts: how much is to do, how to do less if that is much, and what will be gone."""
    from bottega.core.recipe import next_smaller
    from bottega.core.view import human_seconds

    todo = [step for step in steps if not step.done]
    seconds = sum(step.plan.cost.seconds or 0.0 for step in todo)
    lines = [f"{len(todo)} of {len(steps)} steps to do, about {human_seconds(seconds)} on this machine"]
    smaller = next_smaller(recipe)
    if recipe.patience_seconds is not None and seconds > recipe.patience_seconds and smaller:
        command = _command_with(words, smaller)
        lines.append(f"that is more than {human_seconds(recipe.patience_seconds)}; smaller: {command}")
    surely, maybe = (", ".join(s.name for s in steps if s.replaces == which) for which in ("yes", "maybe"))
    if surely or maybe:
        parts = [surely, f"what follows from changed inputs ({maybe})" if maybe else ""]
        lines.append(
            f"replaced, as settings or inputs differ: {' and '.join(filter(None, parts))}; "
            "another --workspace keeps what is finished"
        )
    return lines


def _say(lines: list[str], console: Console) -> None:
    """Each on a line of its own, however long: a command is there to be copied."""
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _command_with(words: list[str], values: dict[str, Any]) -> str:
    """The command as it was given, with other values of some parameters."""
    kept, rest = [], iter(words)
    for word in rest:
        name, separator, _ = word.partition("=")
        if name.removeprefix("--").replace("-", "_") not in values:
            kept.append(word)
        elif not separator:
            next(rest, None)
    return shlex.join(
        ["bottega", "run", *kept, *(word for name, value in values.items() for word in (f"--{name}", str(value)))]
    )


def _announcer(console: Console) -> Any:
    def announce(step: Step, number: int, count: int) -> None:
        state = "done already" if step.done else "; ".join(step.plan.work[:1])
        console.print(f"[bold]{number}/{count} {step.name}[/bold] · {step.verb.name} · ", end="", highlight=False)
        console.print(state, markup=False, highlight=False)

    return announce


def _finish(chain: Any, steps: list[Step], console: Console, *, as_json: bool) -> None:
    from rich.console import Console as Output

    from bottega.cli.render import show, show_json
    from bottega.core.record import read_record
    from bottega.verbs.reports import write_recipe_report

    path = write_recipe_report(chain.recipe, chain.folder, steps)
    if as_json:
        data = {step.name: step.result.data for step in steps if step.result}
        records = {step.name: read_record(step.plan.out) for step in steps if step.plan.out}
        data |= {name: record.metrics for name, record in records.items() if record}
        show_json({"report": str(path), "steps": {step.name: data.get(step.name) for step in steps}})
        return
    for step in steps:  # what a step shows without writing it would be lost
        if step.result and step.plan.out is None:
            show(step.result.view, Output(highlight=False))
    console.print(f"report: {path}", markup=False, highlight=False)
