"""The Python API: one function per verb, named as on the command line (`data collect` → `data_collect`).

>>> from bottega.verbs import generate
>>> generate(model="workspace/quickstart/model", prompt="def ", max_new_tokens=8)["text"]

Arguments are the verb's settings; the result is what `--json` prints. Errors are `bottega.core.errors`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bottega.core.progress import Quiet, Reporter
from bottega.verbs.registry import VERBS


def __getattr__(name: str) -> Callable[..., dict[str, Any]]:
    """The function of the verb called `name`."""
    verb = VERBS.get(name.replace("_", " "))
    if verb is None:
        raise AttributeError(f"module 'bottega.verbs' has no attribute {name!r}")

    def call(*, reporter: Reporter | None = None, **settings: Any) -> dict[str, Any]:
        from bottega.core.plan import Specs
        from bottega.core.verb import execute

        config = verb.config_type().parse(settings, where=verb.name)
        return execute(verb, verb.make_plan(config, Specs()), reporter or Quiet()).data

    call.__name__ = name
    call.__doc__ = verb.summary
    return call


def __dir__() -> list[str]:
    """The verbs' names."""
    return sorted(name.replace(" ", "_") for name in VERBS)
