"""The command line: parse, call one verb, render.

Only the command that was asked for gets its full signature, so `bottega --help` stays fast;
for shell completion all of them do.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Annotated

import typer

from bottega.cli import recipes
from bottega.cli.commands import add_verb
from bottega.verbs.registry import VERBS

GROUPS = {
    "data": "Read, split and tokenise data.",
    "tokenizer": "Train and look into tokenizers.",
    "hub": "Fetch and publish models, and keep the cache.",
    "adapter": "Merge adapters.",
    "bench": "Measure servers.",
    "course": "Learn: lessons, labs, exercises and reviews in the terminal.",
}
HELP = """Make, change, measure and serve language models, on your own machine.

Start with:  bottega run quickstart"""


def build_app(words: list[str], *, complete: bool = False) -> typer.Typer:
    """The application for this command line.

    Args:
        words: arguments as given; the command they begin with gets its options.
        complete: give every command its options (shell completion).
    """
    app = typer.Typer(
        help=HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(help=HELP)(_main)
    groups = {
        name: typer.Typer(help=text, no_args_is_help=True, rich_markup_mode=None) for name, text in GROUPS.items()
    }
    recipes.add_to(app)
    for verb in VERBS.values():
        group, _, name = verb.name.rpartition(" ")
        asked = complete or words[: len(verb.name.split())] == verb.name.split()
        add_verb(groups[group] if group else app, name, verb, full=asked)
    for name, group_app in groups.items():
        app.add_typer(group_app, name=name)
    return app


def main() -> None:
    """Entry point of `bottega` and `python -m bottega`."""
    complete = any(name.endswith("_COMPLETE") for name in os.environ)
    try:
        build_app([word for word in sys.argv[1:] if not word.startswith("-")], complete=complete)()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        _forget_output()
        sys.exit(1)
    except SystemExit:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            _forget_output()
        raise


def _forget_output() -> None:
    """Whoever read our output has gone (`bottega … | head`): let Python's own flush at the end go nowhere."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version as installed

        print(installed("bottega"))
        raise typer.Exit


def _main(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and stop.")
    ] = False,
) -> None:
    """Options of `bottega` itself; `--version` is done by its own callback."""


if __name__ == "__main__":
    main()
