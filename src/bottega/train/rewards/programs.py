"""The reward of a program: its unit tests, run in `core`'s sandbox, several at once.

A program passes if it and its tests run through to their end (`evaluate.tasks.code_tasks`): leaving early, as a policy
soon learns to do, is not passing. The sandbox keeps a program from doing harm, not from every deceit: read what a
policy writes when its reward jumps.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from bottega.core.errors import UserError
from bottega.evaluate.tasks.code_tasks import passes, require_isolation
from bottega.train.rewards.answer import Answer, ScoreAll
from bottega.train.rewards.config import RewardSettings
from bottega.train.rewards.extract import extractor
from bottega.train.rewards.text import texts_of


def unit_tests(settings: RewardSettings) -> ScoreAll:
    """1 if all tests of the row pass (or the share that does, with `partial`), 0 where there is no program.

    The program is the last block of code of the answer, or what the setting `extract` finds.
    Raises BottegaError where this machine cannot isolate programs, UserError if a row has no tests.
    """
    find, name = extractor(settings.extract or "code"), settings.row_field or "tests"

    def score(answers: Sequence[Answer]) -> list[float]:
        require_isolation()
        runs: list[tuple[str, str]] = []
        spans: list[range] = []
        for answer in answers:
            program = find(answer.text)
            own = _tests(texts_of(answer.row, name), settings.partial) if program and program.strip() else []
            spans.append(range(len(runs), len(runs) + len(own)))
            runs += [(program or "", tests) for tests in own]
        distinct = list(dict.fromkeys(runs))  # a policy that has settled says the same again and again
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            outcomes = pool.map(lambda run: passes(run[0], run[1], settings.timeout), distinct)
            passed = dict(zip(distinct, outcomes, strict=True))
        return [sum(passed[runs[place]] for place in span) / len(span) if span else 0.0 for span in spans]

    return score


def _tests(texts: Sequence[str], partial: bool) -> list[str]:
    if not any(text.strip() for text in texts):
        raise UserError("a prompt's row has no tests", hint="A program without tests would always pass.")
    return list(texts) if partial else ["\n".join(texts)]
