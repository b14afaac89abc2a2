"""Interactive views: a few settings, and a picture that follows them at once.

A view is a module like a lab: a docstring (its title, then what is seen in it), a model of settings `Params`, and
`show(params, models) -> Iterator[Block]`. Unlike a lab it answers in a moment, asserts nothing, and keeps no record.
Views run in a process of their own (`course.views.process`), which keeps the models that they look at.
"""

from __future__ import annotations

from pathlib import Path

from bottega.core.errors import UserError, did_you_mean

# In the order in which they are listed; the lesson's `{{view:NAME}}` is checked against it.
VIEWS = {
    "merges": "architecture",
    "attention": "architecture",
    "logit-lens": "architecture",
    "decoding": "architecture",
    "loss-landscape": "pre-training",
    "lora-rank": "fine-tuning",
}
"""View → the chapter that it belongs to."""


def view_path(name: str) -> Path:
    """The module of a view; raises UserError with the nearest name."""
    if name not in VIEWS:
        raise UserError(f"there is no view {name!r}", hint=did_you_mean(name, VIEWS))
    return Path(__file__).parent / f"{name.replace('-', '_')}.py"
