"""The Python API: one function per verb, named as on the command line (`data collect` → `data_collect`).

>>> from bottega.verbs import generate
>>> generate(model="workspace/quickstart/model", prompt="def ", max_new_tokens=8)["text"]

Arguments are the verb's settings; the result is what `--json` prints. Errors are `bottega.core.errors`.
`plan` checks and estimates without doing anything, as `--plan --json` does:

>>> from bottega import verbs
>>> verbs.plan("train", data="tokens", tokenizer="tok", out="base")["cost"]["seconds"]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bottega.core.progress import Quiet, Reporter
from bottega.core.verb import Verb, execute, find_verb
from bottega.verbs.registry import VERBS

if TYPE_CHECKING:
    from bottega.core.plan import Plan


def plan(name: str, /, **settings: Any) -> dict[str, Any]:
    """The plan of the verb called `name`, as data: checks, work, cost. A check that fails has `passed` False."""
    from bottega.core.plan import only_planning

    with only_planning():
        return _plan(find_verb(VERBS, name.replace("_", " ")), settings).as_data()


def _plan(verb: Verb, settings: dict[str, Any]) -> Plan:
    from bottega.core.plan import Specs

    return verb.make_plan(verb.config_type().parse(settings, where=verb.name), Specs())


def __getattr__(name: str) -> Callable[..., dict[str, Any]]:
    """The function of the verb called `name`."""
    verb = VERBS.get(name.replace("_", " "))
    if verb is None:
        raise AttributeError(f"module 'bottega.verbs' has no attribute {name!r}")

    def call(*, reporter: Reporter | None = None, **settings: Any) -> dict[str, Any]:
        return execute(verb, _plan(verb, settings), reporter or Quiet()).data

    call.__name__ = name
    call.__doc__ = verb.summary
    return call


def __dir__() -> list[str]:
    """The verbs' names, and `plan`."""
    return sorted(["plan", *(name.replace(" ", "_") for name in VERBS)])
