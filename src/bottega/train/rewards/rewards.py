"""All rewards of a recipe as one: the weighted sum of its components, and figures of each.

A component that is not understood hides in a sum, so each one's mean and deviation are told apart. An answer that was
cut off earns nothing from a component unless it asks for it: else a policy learns to go on for ever.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev

from bottega.core.errors import BottegaError, UserError
from bottega.core.hashing import digest_tokenizer
from bottega.core.model_files import MAX_TOKENIZER_BYTES, parse_object, read_bounded
from bottega.core.plan import Check
from bottega.train.rewards.answer import Answer, ScoreAll, one_by_one
from bottega.train.rewards.config import RewardSettings, names_of

TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True)
class Scores:
    """What answers earned: in all, and by component before its weight."""

    total: list[float]
    components: dict[str, list[float]]

    def figures(self) -> dict[str, float]:
        """Mean and standard deviation: `reward`, `reward_std`, `reward/NAME`, `reward/NAME_std`."""
        found = _mean_and_deviation("reward", self.total)
        for name, values in self.components.items():
            found |= _mean_and_deviation(f"reward/{name}", values)
        return found


class Rewards:
    """Scores answers. Raises what its components raise; a reward that is not finite is an error."""

    def __init__(
        self, settings: Sequence[RewardSettings], *, allow_code: bool = False, device: str = "cpu"
    ) -> None:
        """Load what the settings name, reward models to `device`.

        Raises UserError if there are none, or code is not allowed.
        """
        if not settings:
            raise UserError("there is no reward", hint="Say what an answer is rewarded for; see docs/rewards.md.")
        self.settings = tuple(settings)
        self.names = names_of(self.settings)
        for each in self.settings:
            if each.type == "python" and not allow_code:
                raise UserError(_not_allowed(each))
        self._components = [component(each, device) for each in self.settings]

    def __call__(self, answers: Sequence[Answer]) -> Scores:
        """What each answer earns."""
        components = {
            name: _scored(name, settings, score, answers)
            for name, settings, score in zip(self.names, self.settings, self._components, strict=True)
        }
        weights = [each.weight for each in self.settings]
        total = [math.fsum(map(float.__mul__, weights, values)) for values in zip(*components.values(), strict=True)]
        return Scores(total, components)


def component(settings: RewardSettings, device: str = "cpu") -> ScoreAll:
    """The function that a reward's settings ask for."""
    from bottega.train.rewards import models, programs, text  # some load much

    made: Mapping[str, Callable[[], ScoreAll]] = {
        "exact": lambda: one_by_one(text.exact(settings)),
        "contains": lambda: one_by_one(text.contains(settings)),
        "format": lambda: one_by_one(text.in_format(settings)),
        "json": lambda: one_by_one(text.json_valid(settings)),
        "length": lambda: text.length(settings),
        "tests": lambda: programs.unit_tests(settings),
        "model": lambda: models.reward_model(settings, device),
        "judge": lambda: models.judged(settings),
        "python": lambda: one_by_one(models.own_function(settings)),
    }
    return made[settings.type]()


def check_rewards(
    settings: Sequence[RewardSettings],
    rows: Sequence[Mapping[str, object]],
    *,
    allow_code: bool,
    tokenizer_hash: str = "",
) -> list[Check]:
    """What can be checked before a run: files, fields of the prompts' rows, permission for code.

    `tokenizer_hash` is that of the model that answers (`core.hashing.digest_tokenizer`), whose tokens a reward model
    is given.
    """
    checks: list[Check] = []
    for name, each in zip(names_of(tuple(settings)), settings, strict=True):
        label = f"reward {name}"
        if each.type == "python" and not allow_code:
            checks.append(Check(label, False, _not_allowed(each)))
            continue
        if each.type == "model" and (problem := _other_tokens(Path(each.path or ""), tokenizer_hash)):
            checks.append(Check(label, False, problem))
            continue
        missing = [str(path) for path in each.files().values() if not path.exists()]
        field = each.row_field
        lacking = sum(row.get(field) is None for row in rows) if field else 0
        if missing:
            checks.append(Check(label, False, f"there is no {missing[0]}"))
        elif lacking:
            checks.append(Check(label, False, f"{lacking} of {len(rows)} prompts have no field {field!r}"))
        else:
            checks.append(Check(label, True, f"{each.type}, weight {each.weight:g}"))
    return checks


def _other_tokens(model: Path, tokenizer_hash: str) -> str:
    """Why a reward model cannot read the answers' tokens; "" if it can, or nothing is known against it."""
    file = model / TOKENIZER_FILE
    if not tokenizer_hash or not file.is_file():
        return ""
    if digest_tokenizer(parse_object(read_bounded(file, MAX_TOKENIZER_BYTES), file)) == tokenizer_hash:
        return ""
    return f"the tokenizer of {model} is not that of the model that answers: train the reward model from the same base"


def _not_allowed(settings: RewardSettings) -> str:
    return f"the reward would run {settings.path}: allow it with allow_code: true, if it is your own code"


def _scored(name: str, settings: RewardSettings, score: ScoreAll, answers: Sequence[Answer]) -> list[float]:
    """Scores of one component; answers that were cut off are not shown to it, unless it scores them."""
    shown = [answer for answer in answers if answer.finished or settings.scores_unfinished]
    found = iter(score(shown) if shown else [])
    cut_off = settings.unfinished if isinstance(settings.unfinished, float) else 0.0
    values = [
        float(next(found)) if answer.finished or settings.scores_unfinished else cut_off for answer in answers
    ]
    if not all(map(math.isfinite, values)):
        raise BottegaError(f"the reward {name} is not finite for an answer")
    return values


def _mean_and_deviation(name: str, values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return {name: fmean(values), f"{name}_std": pstdev(values)}
