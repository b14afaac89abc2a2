"""What the figures of a run warn of: a table of rules on the rows of `metrics.jsonl`, each with a sentence.

Sources: rewards that rise while what they stand for falls, and the distance at which that begins: Gao, Schulman &
Hilton, "Scaling laws for reward model overoptimization" (arXiv 2210.10760); chosen answers that become rarer under DPO:
Pal et al., "Smaug" (arXiv 2402.13228); entropy collapse and groups without variance: DAPO (arXiv 2503.14476).
A figure's beginning and end are its means over the first and the last tenth of the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bottega.train.curves import HELD, Rows, points

TENTH = 10
FAR = 10.0  # nats an answer
FAR_A_TOKEN = 0.5  # nats, of the comparison on general text
NOISE = 0.25  # of the rewards' standard deviation: twice the standard error of a mean over 64 held-out prompts
RESTS = 0.2  # share of the margin's growth that comes of chosen answers growing rarer, from which it is told


class Watched:
    """The figures of a run: where they began and where they ended."""

    def __init__(self, rows: Rows, metrics: Mapping[str, Any]) -> None:
        self.rows, self.metrics = rows, metrics

    def has(self, *names: str) -> bool:
        """Whether there are rows with each of these."""
        return all(points(self.rows, name) for name in names)

    def first(self, name: str) -> float:
        """Mean over the first tenth of a figure's rows; NaN (which no rule holds of) if there are none."""
        return _mean([value for _, value in points(self.rows, name)], end=False)

    def last(self, name: str) -> float:
        """Mean over the last tenth."""
        return _mean([value for _, value in points(self.rows, name)], end=True)

    def lowest(self, name: str) -> float:
        """The least value."""
        return min((value for _, value in points(self.rows, name)), default=float("nan"))

    def newest(self, name: str) -> float:
        """The last value."""
        return next((value for _, value in reversed(points(self.rows, name))), float("nan"))

    def rise(self, name: str) -> float:
        """From beginning to end."""
        return self.last(name) - self.first(name)


@dataclass(frozen=True)
class Rule:
    """If it `holds`, the sentence is told; braces in it are filled with what `shown` gives."""

    name: str
    holds: Callable[[Watched], bool]
    sentence: str
    shown: Callable[[Watched], Mapping[str, float]] = lambda _: {}


def _mean(values: list[float], *, end: bool) -> float:
    count = max(1, len(values) // TENTH)
    part = values[-count:] if end else values[:count]
    return sum(part) / len(part) if part else float("nan")


def _kl_of_answers(run: Watched) -> float:
    return run.last("kl") * run.last("length")


def _rarer(run: Watched, chosen: str = "reward_chosen") -> float:
    """The share of the margin's growth that the chosen answers' fall is; of held-out pairs where there are some."""
    held = HELD if len(points(run.rows, HELD + chosen)) > 1 else ""
    growth = run.rise(f"{held}margin")
    return -run.rise(held + chosen) / growth if growth > 0 else float("nan")


def _general_kl(run: Watched) -> float:
    return ((run.metrics.get("comparison") or {}).get("general") or {}).get("kl_mean", float("nan"))


RULES = (
    Rule("far from the start", lambda run: run.has("length") and _kl_of_answers(run) > FAR,
         "The answers are {kl:.1f} nats away from the start's (KL): from about 10 on, what is rewarded and what is "
         "wanted tend to part. A larger policy.beta or a smaller learning rate holds it nearer.",
         lambda run: {"kl": _kl_of_answers(run)}),
    Rule("other on general text", lambda run: _general_kl(run) > FAR_A_TOKEN,
         "On general text the model differs from its start by a KL of {kl:.2f} nats a token: much of what it knew may "
         "have changed. Fewer steps, a smaller learning rate or some general text among the data keep more of it.",
         lambda run: {"kl": _general_kl(run)}),
    Rule("reward parts from held-out",
         lambda run: run.rise("reward") > 0 and -run.rise("heldout_reward") > NOISE * run.first("heldout_reward_std"),
         "The reward rose by {train:.3g} in training and fell by {held:.3g} on held-out prompts: learned by heart.",
         lambda run: {"train": run.rise("reward"), "held": -run.rise("heldout_reward")}),
    Rule("accuracy parts from held-out", lambda run: run.rise("accuracy") > 0 and run.rise("heldout_accuracy") < -0.05,
         "Accuracy rose by {train:.2f} in training and fell by {held:.2f} on held-out data: it is learned by heart.",
         lambda run: {"train": run.rise("accuracy"), "held": -run.rise("heldout_accuracy")}),
    Rule("held-out loss rises again",
         lambda run: not run.has("length") and run.newest("heldout_loss") > 1.02 * run.lowest("heldout_loss") > 0
         and run.rise("loss") < 0,
         "The held-out loss ended at {last:.3f}, above the {lowest:.3f} that it had reached: it trained for too long. "
         "patience keeps the best weights.",
         lambda run: {"last": run.newest("heldout_loss"), "lowest": run.lowest("heldout_loss")}),
    Rule("entropy collapse", lambda run: run.last("entropy") < 0.2 * run.first("entropy"),
         "The entropy fell from {first:.2f} to {last:.2f} nats a token: the answers are all but fixed, and nothing new "
         "will be found. A higher clip_high, a smaller learning rate or more groups keep it open.",
         lambda run: {"first": run.first("entropy"), "last": run.last("entropy")}),
    Rule("groups without variance", lambda run: run.last("zero_variance") > 0.8,
         "{share:.0%} of the groups earned one reward for all their answers and taught nothing: the prompts are too "
         "easy or too hard for this model, or the reward does not tell answers apart.",
         lambda run: {"share": run.last("zero_variance")}),
    Rule("one reward for all", lambda run: not run.has("zero_variance") and run.last("reward_std") == 0,
         "At the end all answers earned the same: there is nothing to learn from."),
    Rule("cut off", lambda run: run.last("finished") < 0.05,
         "{share:.0%} of the answers were cut at max_new_tokens before they ended: it is too small, or the model does "
         "not end its answers.",
         lambda run: {"share": 1 - run.last("finished")}),
    Rule("chosen grow rarer", lambda run: _rarer(run) > RESTS and run.rise("reward_rejected") < 0,
         "The chosen answers grew less likely along with the rejected ones ({share:.0%} of the margin's growth): the "
         "known drift of DPO. A larger beta, some nll_weight or a smaller learning rate counter it.",
         lambda run: {"share": _rarer(run)}),
    Rule("mostly clipped", lambda run: run.last("clip_low") + run.last("clip_high") > 0.5,
         "{share:.0%} of the probability ratios were clipped: most of each step is thrown away. Fewer policy.updates "
         "or a smaller learning rate.",
         lambda run: {"share": run.last("clip_low") + run.last("clip_high")}),
    Rule("skipped steps", lambda run: run.metrics.get("skipped_steps", 0) > 0.05 * run.metrics.get("steps", 0),
         "{count:.0f} of {steps:.0f} steps were skipped: their loss or gradient was not finite, or far above the rest.",
         lambda run: {"count": run.metrics["skipped_steps"], "steps": run.metrics["steps"]}),
)  # fmt: skip


def warnings(rows: Rows, metrics: Mapping[str, Any]) -> list[str]:
    """The sentences of the rules that hold, in the order of the table."""
    run = Watched(rows, metrics)
    return [rule.sentence.format(**rule.shown(run)) for rule in RULES if rule.holds(run)]
