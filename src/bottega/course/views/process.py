"""The process in which views run: a request a line on standard input, an answer a line on standard output.

    python -m bottega.course.views.process

    → {"view": "attention", "params": {"layer": "1"}}
    ← {"blocks": [{"block": "heat", …}]}    or    {"error": "…", "hint": "…"}

It has one thread and no GPU, as labs, and ends when its input does.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from bottega.core.errors import BottegaError
from bottega.course.views import view_path


def answer(request: dict[str, Any], models: Any) -> dict[str, Any]:
    """The answer to one request."""
    from bottega.course.lab import block_data, load_module

    try:
        module = load_module(view_path(request["view"]))
        params = module.Params.parse(request["params"], where="the settings")
        return {"blocks": [block_data(block) for block in module.show(params, models)]}
    except BottegaError as error:
        return {"error": error.message, "hint": error.hint}


def main() -> None:
    """Answer until there is nothing more to answer."""
    from bottega.course.run_lab import ENVIRONMENT

    os.environ.update(ENVIRONMENT)
    answers, sys.stdout = sys.stdout, sys.stderr  # what is printed by the way is no answer
    from bottega.course.views.models import Models

    models = Models()
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), models)), file=answers, flush=True)


if __name__ == "__main__":
    main()
