"""Taking the events along: as JSON lines, merged where they arrive; and questions with answers for Anki.

Anki's text format: docs.ankiweb.net/importing/text-files.html, with headers that name separator, columns and tags.
"""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime
from pathlib import Path

from bottega.core.atomic import write_text
from bottega.core.errors import UserError
from bottega.course.learner.events import Event
from bottega.course.learner.learner import Learner
from bottega.course.learner.questions import Given, Question, mark, question
from bottega.course.render import inline_html

FORMAT = "bottega-learner-1"


def export_events(learner: Learner, path: Path) -> int:
    """Write all events as JSON lines behind a line that says what they are; returns how many."""
    rows = [{"format": FORMAT}]
    rows += [
        {"uuid": each.uuid, "at": each.at.isoformat(), "kind": each.kind, "data": dict(each.data)}
        for each in learner.events.after(0)
    ]
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    return len(rows) - 1


def import_events(learner: Learner, path: Path) -> int:
    """Add the events of a file that are not there yet; returns how many. Raises UserError if it is no such file."""
    try:
        first, *rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        if first != {"format": FORMAT}:
            raise ValueError("its first line is another one")
        events = [Event(datetime.fromisoformat(r["at"]), r["kind"], dict(r["data"]), str(r["uuid"])) for r in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no export of the course: {error}") from None
    return learner.events.merge(sorted(events, key=lambda event: event.at))


def anki_cards(learner: Learner, path: Path) -> int:
    """Write every question that was answered at least once as a card for Anki; returns how many."""
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    asked = [name for name in learner.state().asked if name in learner.course.items]
    for name in asked:
        chapter, item = learner.course.items[name]
        shown = question(chapter, item, 0)
        lines = [shown.stem, *(f"• {text}" for text in (*shown.options, *shown.lines)), shown.code]
        found = mark(chapter, item, 0, _any_answer(shown))
        whys = [why for _, _, right, why in found.options if right]
        back = f"{found.answer} — {found.why or ' '.join(whys)}"
        front = "<br>".join(inline_html(line) for line in lines if line)
        writer.writerow([front, inline_html(back), f"bottega::{chapter.id} {item.concept}"])
    head = "#separator:Comma\n#html:true\n#columns:Front,Back,Tags\n#tags column:3\n"
    write_text(path, head + rows.getvalue())
    return len(asked)


def _any_answer(shown: Question) -> Given:
    """Something that can be marked: what is wanted is the mark's own answer."""
    some: dict[str, Given] = {
        "single": 0, "multi": [0], "order": list(range(len(shown.lines))), "match": [0] * len(shown.lefts),
        "cloze": [""] * shown.blanks, "numeric": "0", "output": "",
    }  # fmt: skip
    return some[shown.kind]
