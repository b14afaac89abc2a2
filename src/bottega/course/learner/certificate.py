"""A certificate that can be verified: it carries the answers and the code, and verifying does the work again.

Scores are folded from the events anew, and every solved exercise is graded again. It proves that somebody did this; not
who. Nothing is asked of a server.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bottega.core.atomic import write_json
from bottega.core.errors import UserError
from bottega.core.hashing import digest_data
from bottega.course.grade import grade
from bottega.course.learner.events import Event
from bottega.course.learner.learner import Learner
from bottega.course.learner.state import State
from bottega.course.learner.tracing import MASTERY

FORMAT = "bottega-certificate-1"


def certificate(learner: Learner, name: str = "") -> dict[str, Any]:
    """What is mastered, what it follows from, and the code of every solved exercise."""
    events = [_row(event) for event in learner.events.after(0)]
    state = learner.state()
    body = {
        "format": FORMAT, "name": name, "issued": learner.clock().isoformat(),
        "concepts": _scores(state), "exercises": dict(sorted(state.solved.items())), "events": events,
        "chapters": {
            chapter.id: sum(state.of(c.id).known >= MASTERY for c in chapter.data.concepts) / len(chapter.data.concepts)
            for chapter in learner.course.written()
        },
    }  # fmt: skip
    return {**body, "sha256": digest_data(body)}


def write_certificate(learner: Learner, path: Path, name: str = "") -> dict[str, Any]:
    """Write it as JSON; returns it."""
    data = certificate(learner, name)
    write_json(path, data)
    return data


def verify(learner: Learner, text: str, where: str = "this file") -> list[str]:
    """What is wrong with a certificate, in words; nothing if it holds. Raises UserError if it is none.

    Args:
        learner: whoever verifies: the course, its graders and its graph are used, none of what the learner did.
        text: the certificate.
        where: what to call it in an error.
    """
    try:
        data = json.loads(text)
        body = {key: value for key, value in data.items() if key != "sha256"}
        events = [Event(_at(r["at"]), r["kind"], r["data"], r["uuid"], i + 1) for i, r in enumerate(data["events"])]
        if data["format"] != FORMAT:
            raise ValueError("it has another format")
        concepts, exercises, seal = dict(data["concepts"]), dict(data["exercises"]), data["sha256"]
        state = State()
        for event in events:
            state.apply(event, learner.graph)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where} is no certificate: {error}") from None
    problems = [] if seal == digest_data(body) else ["it was changed after it was written"]
    if _scores(state) != concepts:
        problems.append("the scores do not follow from the answers")
    if state.solved.keys() != exercises.keys():
        problems.append("the exercises are not those that were solved")
    for name, code in exercises.items():
        if not grade(learner.course.exercise(name), str(code), learner.folder).passed:
            problems.append(f"the code of {name} does not pass its checks")
    return problems


def _scores(state: State) -> dict[str, float]:
    return {name: round(known.known, 6) for name, known in sorted(state.concepts.items()) if known.answers}


def _row(event: Event) -> dict[str, Any]:
    return {"uuid": event.uuid, "at": event.at.isoformat(), "kind": event.kind, "data": dict(event.data)}


def _at(text: str) -> Any:
    from datetime import datetime

    return datetime.fromisoformat(text)
