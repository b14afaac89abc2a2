"""Taking the events along: as JSON lines, merged where they arrive; and questions with answers for Anki.

Anki's text format: docs.ankiweb.net/importing/text-files.html, with headers that name separator, columns and tags.
"""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from bottega.core.atomic import write_text
from bottega.core.errors import UserError
from bottega.course.learner.events import Event
from bottega.course.learner.learner import Learner
from bottega.course.learner.questions import Given, Question, mark, question
from bottega.course.learner.state import State
from bottega.course.render import inline_html

FORMAT = "bottega-learner-1"


def export_text(learner: Learner) -> str:
    """All events as JSON lines, behind a line that says what they are."""
    rows: list[dict[str, Any]] = [{"format": FORMAT}]
    rows += [
        {"uuid": each.uuid, "at": each.at.isoformat(), "kind": each.kind, "data": dict(each.data)}
        for each in learner.events.after(0)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def export_events(learner: Learner, path: Path) -> int:
    """Write all events as JSON lines; returns how many."""
    text = export_text(learner)
    write_text(path, text)
    return text.count("\n") - 1


def import_text(learner: Learner, text: str, where: str = "this file") -> int:
    """Add the events of an export that are not there yet; returns how many. Raises UserError if it is none."""
    try:
        first, *rows = [json.loads(line) for line in text.splitlines()]
        if first != {"format": FORMAT}:
            raise ValueError("its first line is another one")
        events = [Event(datetime.fromisoformat(r["at"]), r["kind"], dict(r["data"]), str(r["uuid"])) for r in rows]
        trial = State()
        for event in events:
            trial.apply(event, learner.graph)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where} is no export of the course: {error}") from None
    return learner.events.merge(sorted(events, key=lambda event: event.at))


def import_events(learner: Learner, path: Path) -> int:
    """Add the events of a file that are not there yet; returns how many. Raises UserError if it is no such file."""
    return import_text(learner, read_text(path), str(path))


def read_text(path: Path) -> str:
    """A file from elsewhere; raises UserError where it cannot be read as text."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def anki_text(learner: Learner) -> str:
    """Every question that was answered at least once as a card for Anki."""
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    for name in _asked(learner):
        chapter, item = learner.course.items[name]
        shown = question(chapter, item, 0)
        lines = [shown.stem, *(f"• {text}" for text in (*shown.options, *shown.lines)), shown.code]
        found = mark(chapter, item, 0, _any_answer(shown))
        whys = [why for _, _, right, why in found.options if right]
        back = f"{found.answer} — {found.why or ' '.join(whys)}"
        front = "<br>".join(inline_html(line) for line in lines if line)
        writer.writerow([front, inline_html(back), f"bottega::{chapter.id} {item.concept}"])
    return "#separator:Comma\n#html:true\n#columns:Front,Back,Tags\n#tags column:3\n" + rows.getvalue()


def anki_cards(learner: Learner, path: Path) -> int:
    """Write the cards for Anki; returns how many."""
    write_text(path, anki_text(learner))
    return len(_asked(learner))


def _asked(learner: Learner) -> list[str]:
    return [name for name in learner.state().asked if name in learner.course.items]


def _any_answer(shown: Question) -> Given:
    """Something that can be marked: what is wanted is the mark's own answer."""
    some: dict[str, Given] = {
        "single": 0, "multi": [0], "order": list(range(len(shown.lines))), "match": [0] * len(shown.lefts),
        "cloze": [""] * shown.blanks, "numeric": "0", "output": "",
    }  # fmt: skip
    return some[shown.kind]
