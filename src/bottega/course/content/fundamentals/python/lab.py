"""A score that is too good.

Rows of a made-up bank say who paid a loan back. As the chance of every row is known, so is the best accuracy that any
model can reach. Seven ways to prepare the data are scored on a test set cut from the same rows, and then on fresh rows:
four of the ways let the test set leak into training, and what it costs is measured.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Bar, Bars, Table
from bottega.course.lab import Axes, Effect, Event, Point, Say, Show, Step, Value

BUDGET = 12
FRESH = 2000
LEAKS = ("target code on all rows", "columns chosen on all rows", "rows copied first")
HONEST = ("clean", "target code on training rows", "target code, cross-fitted")
WAYS = (*HONEST, "scaler on all rows", *LEAKS)
NAMES = dict(zip(WAYS, ("clean", "train_code", "cross_code", "scaler", "code", "columns", "copies"), strict=True))


class Params(Config):
    """What can be changed."""

    rows: int = Field(default=400, ge=80, le=4000)
    """Rows of the table, a quarter of them for the test. Try 4000."""
    streets: int = Field(default=100, ge=2, le=1000)
    """Different streets in the table. Try 5, and 300."""
    noise: int = Field(default=200, ge=10, le=1000)
    """Columns that have nothing to do with the answer."""
    repeats: int = Field(default=40, ge=2, le=200)
    """Tables to draw."""


def run(params: Params) -> Iterator[Event]:
    """Draw tables, prepare them in each way, and hold the score against fresh rows."""
    draw = np.random.default_rng(0)
    many = chances(draw.normal(size=(200_000, 2)))
    best = float(np.maximum(many, 1 - many).mean())
    yield Say(f"Who knows the true chance of every row is right for {best:.1%} of them. No model can do better.")
    yield Axes("score", "Reported accuracy, mean so far", "table", "accuracy", floors={"best possible": best})
    reported = {way: [] for way in WAYS}
    fresh = {way: [] for way in WAYS}
    for repeat in range(params.repeats):
        table, later = rows(draw, params.rows, params), rows(draw, FRESH, params)
        for way in WAYS:
            seen, unseen = scores(way, table, later, repeat)
            reported[way].append(seen)
            fresh[way].append(unseen)
        for way in ("clean", "target code on all rows", "columns chosen on all rows"):
            yield Point("score", way, repeat + 1, float(np.mean(reported[way])))
        yield Step(repeat + 1, params.repeats)
    seen = {way: float(np.mean(reported[way])) for way in WAYS}
    unseen = {way: float(np.mean(fresh[way])) for way in WAYS}
    gap = {way: seen[way] - unseen[way] for way in WAYS}
    yield Show("ways", Table(
        "What was reported, and what was true", ["preparation", "reported", "on fresh rows", "too good by"],
        [(way, f"{seen[way]:.3f}", f"{unseen[way]:.3f}", f"{gap[way]:+.3f}") for way in WAYS],
        note=f"Means over {params.repeats} tables. The best possible accuracy is {best:.3f}.",
    ))  # fmt: skip
    bars = [Bar(name, value, group=way) for way in WAYS for name, value in (("reported", seen[way]), ("fresh", unseen[way]))]
    yield Show("bars", Bars("Reported and fresh accuracy", "accuracy", bars, percent=True))
    yield Value("best", best, "accuracy", 0.01)
    yield Value("repeats", params.repeats, "tables", 0)
    for way, name in NAMES.items():
        yield Value(name, seen[way], "accuracy", 0.05)
        yield Value(f"{name}_fresh", unseen[way], "accuracy", 0.05)
    yield Value("scaler_gap", abs(gap["scaler on all rows"]), "accuracy", 30)
    yield Value("code_gap", gap["target code on all rows"], "accuracy", 0.2)
    for way in HONEST:
        yield Effect(f"{way}: the report is true to 3 points", abs(gap[way]) < 0.03)
    yield Effect("the leak of a scaler is too small to be seen here", abs(gap["scaler on all rows"]) < 0.02)
    for way in LEAKS:
        yield Effect(f"{way}: the report is at least 8 points too good", gap[way] > 0.08)
    better = unseen["target code, cross-fitted"] - unseen["target code on training rows"]
    yield Effect("a cross-fitted target code makes a better model than a plain one", better > 0.01)
    yield Effect("with a target code on all rows it is above what is possible", seen["target code on all rows"] > best)


def chances(points: np.ndarray) -> np.ndarray:
    """The true chance that a row is a 1, by its two useful columns."""
    return 1 / (1 + np.exp(-(1.2 * points[:, 0] - 0.8 * points[:, 1])))


def rows(draw: np.random.Generator, count: int, params: Params) -> dict[str, np.ndarray]:
    """Two useful columns, a street that means nothing, many columns that mean nothing, and the answer."""
    useful = draw.normal(size=(count, 2))
    return {
        "useful": useful,
        "street": draw.integers(0, params.streets, count),
        "noise": draw.normal(size=(count, params.noise)),
        "answer": (draw.random(count) < chances(useful)).astype(int),
    }


def scores(way: str, table: dict[str, np.ndarray], later: dict[str, np.ndarray], seed: int) -> tuple[float, float]:
    """Accuracy on the table's own test rows, and on fresh ones, of a model prepared in this way."""
    from sklearn.feature_selection import SelectKBest
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, train_test_split
    from sklearn.preprocessing import StandardScaler, TargetEncoder
    from sklearn.tree import DecisionTreeClassifier

    answer = table["answer"]
    train, test = train_test_split(np.arange(len(answer)), test_size=0.25, random_state=seed)
    model: Any = LogisticRegression()
    target: Any = TargetEncoder  # its stubs know neither numbers nor splitters

    def judged(inputs: Any, new: Any) -> tuple[float, float]:
        model.fit(inputs[train], answer[train])
        return model.score(inputs[test], answer[test]), model.score(new, later["answer"])

    if way in ("clean", "scaler on all rows"):
        scaler = StandardScaler().fit(table["useful"] if way != "clean" else table["useful"][train])
        return judged(scaler.transform(table["useful"]), scaler.transform(later["useful"]))
    if way == "target code on all rows":
        encoder = target(smooth=0.001, cv=StratifiedKFold(5)).fit(table["street"][:, None], answer)
        both = [np.column_stack([each["useful"], encoder.transform(each["street"][:, None])]) for each in (table, later)]
        return judged(*both)
    if way.startswith("target code"):
        encoder = target(smooth=0.001, cv=StratifiedKFold(5))
        street = table["street"][:, None]
        if way.endswith("cross-fitted"):  # each training row's code comes from the others
            known = encoder.fit_transform(street[train], answer[train])
        else:
            known = encoder.fit(street[train], answer[train]).transform(street[train])
        codes = encoder.transform(street)
        codes[train] = known
        new = np.column_stack([later["useful"], encoder.transform(later["street"][:, None])])
        return judged(np.column_stack([table["useful"], codes]), new)
    if way == "columns chosen on all rows":
        chosen = SelectKBest(k=10).fit(table["noise"], answer)
        return judged(chosen.transform(table["noise"]), chosen.transform(later["noise"]))
    copied = np.random.default_rng(seed).integers(0, len(answer), 3 * len(answer))
    inputs, answer = table["useful"][copied], answer[copied]
    train, test = train_test_split(np.arange(len(answer)), test_size=0.25, random_state=seed)
    model = DecisionTreeClassifier(random_state=seed)
    return judged(inputs, later["useful"])
