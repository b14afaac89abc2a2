"""A command from a verb: every setting of its config model is an option, its doc the help line."""

from __future__ import annotations

import contextlib
import inspect
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bottega.cli.options import command_of
from bottega.core.errors import BottegaError, UserError
from bottega.core.verb import Verb

if TYPE_CHECKING:
    from rich.console import Console

    from bottega.core.progress import Reporter
    from bottega.core.schema import Config

# Flags that every verb has, beside its settings.
PLAN = Annotated[bool, typer.Option("--plan", help="Check and estimate; do nothing.")]
JSON = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DEBUG = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
QUIET = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
FROM_FILE = Annotated[
    list[str] | None,
    typer.Argument(metavar="FILE|NAME=VALUE", help="Settings from a YAML file, and single ones; arguments too."),
]
_COMMON = {"plan": PLAN, "json": JSON, "debug": DEBUG, "quiet": QUIET}


def add_verb(app: typer.Typer, name: str, verb: Verb, *, full: bool) -> None:
    """Add the verb as command `name`; with its options only if `full`."""

    def command(**given: Any) -> None:
        flags = {key: given.pop(key) for key in _COMMON}
        words = [given.pop(name) for name in verb.arguments] + (given.pop("settings", None) or [])
        with handled(flags["debug"], goes_on=verb.restartable) as console:
            given = {key: value for key, value in given.items() if value not in (None, [])}
            words = [str(word) for word in words if word is not None]
            config = _config(verb, given, words, show_all=flags["plan"])
            _run(verb, config, console, plan_only=flags["plan"], as_json=flags["json"], quiet=flags["quiet"])

    if full:
        parameters = _parameters(verb)
        command.__signature__ = inspect.Signature(parameters)
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    else:
        command.__signature__ = inspect.Signature()
        command.__annotations__ = {}
    app.command(name, cls=command_of(verb), help=verb.summary)(command)


@contextlib.contextmanager
def handled(debug: bool, *, goes_on: bool = True) -> Iterator[Console]:
    """Turn our errors into a message and an exit status; yields the console for people (standard error).

    `goes_on` tells whether the same command finishes what Ctrl-C interrupted.
    """
    from rich.console import Console

    from bottega.cli.render import show_error

    console = Console(stderr=True)
    try:
        yield console
    except BottegaError as error:
        if debug:
            raise
        show_error(error, console)
        raise typer.Exit(error.exit_status) from None
    except KeyboardInterrupt:
        kept = "; what was finished is kept, the same command goes on from there" if goes_on else ""
        console.print(f"\nstopped{kept}", highlight=False)
        raise typer.Exit(130) from None
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except OSError as error:
        if debug:
            raise
        show_error(_of_the_system(error), console)
        raise typer.Exit(1) from None
    except Exception as error:
        if debug:
            raise
        message = f"unexpected failure: {type(error).__name__}: {error}"
        show_error(BottegaError(message, hint="This is a fault of ours. Run again with --debug to see where."), console)
        raise typer.Exit(1) from None


def _of_the_system(error: OSError) -> BottegaError:
    """What the system refused: a full disk, a missing permission. Neither the user's nor our fault."""
    what = f"{error.filename}: " if error.filename else ""
    return BottegaError(f"{what}{error.strerror or error}", hint="Run again with --debug to see where.")


def reporter_for(console: Console, quiet: bool) -> Reporter:
    """Bars on a terminal, lines in a log, nothing if quiet."""
    from bottega.core.progress import Lines, Quiet, Rich

    if quiet:
        return Quiet()
    return Rich(console) if console.is_terminal else Lines()


def _run(verb: Verb, config: Config, console: Console, *, plan_only: bool, as_json: bool, quiet: bool) -> None:
    from rich.console import Console

    from bottega.cli.render import show, show_json
    from bottega.core.plan import Specs, only_planning
    from bottega.core.ranks import follows
    from bottega.core.verb import execute

    output = Console(highlight=False)
    with only_planning() if plan_only else contextlib.nullcontext():
        plan = verb.make_plan(config, Specs())
    if plan_only:
        if as_json:
            show_json(plan.as_data())
        else:
            show(plan.view(), output)
        try:
            plan.require()
        except UserError as error:
            raise UserError(error.message) from None  # its hint is to do what was just done
        return
    result = execute(verb, plan, reporter_for(console, quiet))
    if follows():
        return
    if as_json:
        show_json(result.data)
    else:
        show(result.view, output)
        if plan.out:
            output.print(f"written: {plan.out}", markup=False)
    if result.exit_status:
        raise typer.Exit(result.exit_status)


def _config(verb: Verb, given: dict[str, Any], words: list[str], *, show_all: bool = False) -> Config:
    """Settings from a file, then single overrides, then options; later ones win.

    Of the `words`, NAME=VALUE with the name of a setting and files of YAML are settings wherever they stand;
    the first others are the verb's arguments. `show_all` tells all that became of another program's settings.
    """
    values: dict[str, Any] = {}
    inner: dict[str, Any] = {}
    arguments = list(verb.arguments)
    for word in words:
        is_file = word.endswith((".yaml", ".yml")) and Path(word).is_file()
        if arguments and not is_file and not _is_setting(verb, word):
            name = arguments[0]
            if _takes_several(verb, name):
                given = {**given, name: [*given.get(name, ()), word]}
            else:
                given = {arguments.pop(0): word, **given}
        elif "=" in word:
            single = _single_setting(verb, word)
            _merge(values, single, verb.config_type().model_fields)
            _merge(inner, {name: value for name, value in single.items() if isinstance(value, dict)})
        else:
            values.update(_file_settings(verb, Path(word), show_all))
    given = {name: _section_value(verb, name, value, values.get(name)) for name, value in given.items()}
    values |= given
    _merge(values, {name: value for name, value in inner.items() if isinstance(given.get(name), dict)})
    return verb.config_type().parse(values, where=verb.name)


def _merge(values: dict[str, Any], more: Mapping[str, Any], fields: Mapping[str, Any] | None = None) -> None:
    """Put settings into others, into their sections too; `fields` says what a section given as one word stands for."""
    from bottega.core.schema import section_of

    for name, value in more.items():
        held = values.get(name)
        section = section_of(fields[name].annotation) if fields and name in fields else None
        if section is not None and section.word and isinstance(held, str):
            held = {section.word: held}
        if isinstance(value, dict) and isinstance(held, dict):
            values[name] = dict(held)
            _merge(values[name], value)
        else:
            values[name] = value


def _section_value(verb: Verb, name: str, value: Any, held: Any) -> Any:
    """A section given as an option is YAML: `--adapter '{type: lora, r: 8}'`; one word goes with what is `held`."""
    from bottega.core.schema import parse_scalar, section_of

    section = section_of(verb.config_type().model_fields[name].annotation)
    if section is None:
        return value
    if section.word and isinstance(held, dict) and re.fullmatch(r"\w+", str(value)):
        return {**held, section.word: value}
    return [parse_scalar(part) for part in value] if isinstance(value, list) else parse_scalar(value)


def _takes_several(verb: Verb, name: str) -> bool:
    """Whether an argument is a list of words: then every further one belongs to it."""
    return typing.get_origin(_cli_type(verb.config_type().model_fields[name].annotation)) is list


def _name_in(verb: Verb, word: str) -> str:
    """NAME of `NAME=VALUE` or `VERB.NAME=VALUE`."""
    return word.partition("=")[0].strip().removeprefix(verb.name.replace(" ", "_") + ".")


def _is_setting(verb: Verb, word: str) -> bool:
    return "=" in word and _name_in(verb, word).partition(".")[0] in verb.config_type().model_fields


def _single_setting(verb: Verb, word: str) -> dict[str, Any]:
    from bottega.core.schema import optional_of, parse_override

    name, text = _name_in(verb, word), word.partition("=")[2]
    field = verb.config_type().model_fields.get(name)
    if field and text != "null" and optional_of(field.annotation)[0] in (str, Path):
        return {name: text}  # a folder may be called `2024` or `notes #1`
    section, *inner = name.split(".")
    value = parse_override(word)[1]
    field = verb.config_type().model_fields.get(section)
    if inner and field and optional_of(field.annotation)[0] in (str, Path, int, float, bool):
        raise UserError(f"{verb.name}: {section} is one value, it has no setting {inner[0]!r}")
    for part in reversed(inner):
        value = {part: value}
    return {section: value}


def _file_settings(verb: Verb, path: Path, show_all: bool) -> dict[str, Any]:
    from bottega.core.schema import read_yaml

    data = read_yaml(path)
    if not isinstance(data, dict):
        raise UserError(f"{path} is not a mapping of settings")
    if "steps" in data:
        raise UserError(f"{path} is a recipe", hint=f"Run it with: bottega run {path}")
    if data.pop("verb", verb.name) != verb.name:
        raise UserError(f"{path} holds the settings of another verb, not of {verb.name}")
    foreign = foreign_settings(verb, data, path, show_all)
    return data if foreign is None else foreign


def foreign_settings(verb: Verb, data: dict[str, Any], path: Path, show_all: bool) -> dict[str, Any] | None:
    """The verb's settings in the file of another program; None if it is none of those that the verb reads.

    What became of its settings is shown beside the result. Raises UserError for what would be lost.
    """
    from rich.console import Console

    from bottega.cli.render import show
    from bottega.core.verb import load

    foreign = load(verb.foreign)(data) if verb.foreign else None
    if foreign is None:
        return None
    show(foreign.view(everything=show_all), Console(stderr=True, highlight=False))
    foreign.require(str(path))
    return foreign.settings


def _parameters(verb: Verb) -> list[inspect.Parameter]:
    from bottega.core.schema import sections_of

    fields = verb.config_type().model_fields
    is_sectioned = "sections" in vars(verb.config_type())
    sections = sections_of(verb.config_type()) if is_sectioned else {}
    parameters = []
    for name in [*verb.arguments, *(key for key in sections or fields if key not in verb.arguments)]:
        field = fields[name]
        text = (field.description or "").strip()
        if name in verb.arguments:
            several = "…" if _takes_several(verb, name) else ""
            declared = typer.Argument(help=text, show_default=False, metavar=name.upper() + several)
        else:
            declared = typer.Option(
                *_option_names(name, field.annotation),
                help=_with_default(text, field),
                show_default=False,
                rich_help_panel=sections.get(name),
            )
        # One word at least; a file may bring the rest, and the settings' own check says what is missing.
        required = name in verb.arguments[:1] and field.is_required()
        # A list takes its first word here, the others come with the settings: there can be only one open end.
        annotation = str if _takes_several(verb, name) and name in verb.arguments else _cli_type(field.annotation)
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if required else None,
                annotation=Annotated[annotation if required else annotation | None, declared],
            )
        )
    parameters.append(_parameter("settings", FROM_FILE, None))
    return [*parameters, *(_parameter(name, annotation, False) for name, annotation in _COMMON.items())]


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _option_names(name: str, annotation: Any) -> tuple[str, ...]:
    flag = "--" + name.replace("_", "-")
    return (f"{flag}/--no-{flag[2:]}",) if annotation is bool else (flag,)


def _with_default(text: str, field: Any) -> str:
    if field.is_required():
        return f"{text} [required]"
    if field.default in (None, (), [], False) or callable(field.default_factory):
        return text
    if isinstance(field.default, tuple):
        return f"{text} [default: {' '.join(map(repr, field.default))}]"
    return f"{text} [default: {field.default}]"


def _cli_type(annotation: Any) -> Any:
    """The type as typer understands it: optional parts dropped, sequences as repeatable options."""
    from bottega.core.schema import optional_of

    inner, _ = optional_of(annotation)
    origin = typing.get_origin(inner)
    if origin in (list, tuple):
        item = _cli_type(typing.get_args(inner)[0])
        return list[item if isinstance(item, type) else str]  # typer knows no lists of choices
    if origin in (Literal, None) and (origin is Literal or inner in (str, int, float, bool, Path)):
        return inner
    if origin is Annotated:
        return _cli_type(typing.get_args(inner)[0])
    return str
