"""Questions whose numbers are drawn and whose answers are computed."""

import contextlib
import io
import math
import random
import statistics
from typing import Any

CITIES = ["Bari", "Genoa", "Lecce", "Milan", "Padua", "Siena", "Turin"]


def shared_list(draw: random.Random) -> dict[str, Any]:
    """A second name, or a copy."""
    first = [draw.randint(1, 9) for _ in range(draw.randint(2, 3))]
    copies = draw.random() < 0.5
    how = draw.choice(["a.copy()", "list(a)", "a[:]"]) if copies else "a"
    added = draw.randint(10, 99)
    code = f"a = {first}\nb = {how}\nb.append({added})\nprint(a)\n"
    wrong = str(first + [added]) if copies else str(first)
    return {
        "stem": "What is printed?", "code": code, "answer": printed(code),
        "why": f"`b = {how}` " + ("makes a new list: what is added to it does not reach `a`." if copies else
                                    "ties a second name to the same list."),
        "mistakes": {wrong: f"`{how}` is a new list." if copies else "`b = a` copies nothing: both names mean one list."},
    }  # fmt: skip


def remembered_default(draw: random.Random) -> dict[str, Any]:
    """A default that is made once, or anew."""
    x, y = draw.sample(range(1, 30), 2)
    safe = draw.random() < 0.5
    head = "def add(item, to=None):\n    to = [] if to is None else to\n" if safe else "def add(item, to=[]):\n"
    code = f"{head}    to.append(item)\n    return to\nadd({x})\nprint(add({y}))\n"
    return {
        "stem": "What is printed?", "code": code, "answer": printed(code),
        "why": "`None` is the default, and each call makes its own list." if safe else
        "The default list is made once, at the `def`, and all calls share it.",
        "mistakes": {str([x, y]) if safe else str([y]): "The list is made anew in each call here." if safe else
                     "The default is not made anew: the first call's item is still in it."},
    }  # fmt: skip


def used_up(draw: random.Random) -> dict[str, Any]:
    """A generator gives its values once."""
    n = draw.randint(3, 7)
    lazy = draw.random() < 0.5
    values = f"(k * k for k in range({n}))" if lazy else f"[k * k for k in range({n})]"
    code = f"values = {values}\ntotal = sum(values)\nprint(total, len(list(values)))\n"
    total = sum(k * k for k in range(n))
    return {
        "stem": "What is printed?", "code": code, "answer": printed(code),
        "why": "Round brackets make a generator, and `sum` has used it up." if lazy else
        "Square brackets make a list, which can be gone through again and again.",
        "mistakes": {f"{total} {n}" if lazy else f"{total} 0": "Look at the brackets: a generator gives its values once." if lazy else
                     "Look at the brackets: this is a list, not a generator."},
    }  # fmt: skip


def broadcast_entries(draw: random.Random) -> dict[str, Any]:
    """How many entries a broadcast result has."""
    n, m, d = draw.randint(2, 12), draw.randint(2, 12), draw.randint(2, 6)
    shapes, result = draw.choice([
        ((f"({n}, 1)", f"({m},)"), (n, m)), ((f"({n}, 1, {d})", f"(1, {m}, {d})"), (n, m, d)),
        ((f"({n}, {d})", f"({d},)"), (n, d)), ((f"({n}, 1)", f"(1, {m})"), (n, m)), ((f"({m}, {n}, 1)", f"({d},)"), (m, n, d)),
    ])  # fmt: skip
    return numeric(
        f"An array of shape {shapes[0]} is added to one of shape {shapes[1]}. How many numbers has the result?",
        math.prod(result), "numbers", f"The result has the shape {result}: aligned at the right, sizes of 1 are stretched.",
        {max(result): "A size of 1 is stretched to the other's: the result has as many axes as the longer shape.",
         sum(result): "Sizes along different axes are multiplied, not added."},
    )  # fmt: skip


def axis_sum(draw: random.Random) -> dict[str, Any]:
    """The axis that disappears."""
    rows = [[draw.randint(0, 9) for _ in range(3)] for _ in range(2)]
    axis = draw.randint(0, 1)
    found = [[sum(column) for column in zip(*rows, strict=True)], [sum(row) for row in rows]]
    return {
        "stem": "What is printed?",
        "code": f"import numpy as np\nx = np.array({rows})\nprint(x.sum(axis={axis}).tolist())\n",
        "answer": str(found[axis]),
        "why": f"The axis that is named disappears: of the shape (2, 3), axis {axis} has {2 + axis} entries, and {3 - axis} sums are left.",
        "mistakes": {str(found[1 - axis]): "That is the other axis: the one that is named is summed over."},
    }  # fmt: skip


def joined_rows(draw: random.Random) -> dict[str, Any]:
    """Rows after a join with a key that is not unique."""
    cities = draw.sample(CITIES, 3)
    left = {city: draw.randint(1, 9) for city in cities}
    right = {city: draw.randint(1, 3) for city in cities}
    right[cities[0]] = max(right[cities[0]], 2)
    total = sum(left[city] * right[city] for city in cities)
    said = ", ".join(f"{count} in {city}" for city, count in left.items())
    other = ", ".join(f"{city} {count} time{'s' * (count > 1)}" for city, count in right.items())
    return numeric(
        f"A table has flats: {said}. It is merged on the city with a table that has {other}. How many rows has the result?",
        total, "rows", "Each flat meets each row with its city: " + " + ".join(f"{left[c]} · {right[c]}" for c in cities) + f" = {total}.",
        {sum(left.values()): "A join does not keep the number of rows if a key stands there several times.",
         sum(left.values()) + sum(right.values()): "Rows are matched, not put below each other."},
    )  # fmt: skip


def group_mean(draw: random.Random) -> dict[str, Any]:
    """The mean of a group's means is not the mean."""
    small, large = [draw.randint(1, 9) * 100 for _ in range(2)], [draw.randint(10, 19) * 100 for _ in range(3)]
    kind = draw.choice(["max", "mean of means"])
    means = statistics.mean(small), statistics.mean(large)
    rows = [("Bari", each) for each in small] + [("Milan", each) for each in large]
    draw.shuffle(rows)
    table = ", ".join(f"{city} {rent}" for city, rent in rows)
    if kind == "max":
        return numeric(f"Flats and rents: {table}. What is the larger value of `flats.groupby(\"city\")[\"rent\"].mean()`?",
                       round(max(means), 2), "euros", f"The rents of Milan, {large}, have the mean {max(means):.2f}.",
                       {max(large): "That is the largest rent; asked for is a mean.",
                        round(statistics.mean(small + large), 2): "That is the mean of all rows: the group is not used."}, 0.5)  # fmt: skip
    whole = statistics.mean(small + large)
    return numeric(f"Flats and rents: {table}. What is `flats[\"rent\"].mean()`?", round(whole, 2), "euros",
                   f"The sum {sum(small + large)} over 5 rows is {whole:.2f}; every flat counts once.",
                   {round(statistics.mean(means), 2): "That is the mean of the cities' means: there a city with few flats counts as much as one with many."}, 0.5)  # fmt: skip


def bar_ratio(draw: random.Random) -> dict[str, Any]:
    """How much taller a bar is drawn."""
    low = draw.randint(40, 90)
    high = low + draw.randint(2, 10)
    bottom = low - draw.choice([2, 4, 5, 8])
    drawn = (high - bottom) / (low - bottom)
    return numeric(
        f"Two bars show {low} and {high}; the axis begins at {bottom}. How many times as long as the first is the second one drawn?",
        round(drawn, 3), "times", f"Lengths begin at {bottom}: ({high} - {bottom}) / ({low} - {bottom}) = {drawn:.3f}, where the amounts are as {high / low:.3f} to 1.",
        {round(high / low, 3): "That is the ratio of the amounts: it is what would be drawn if the axis began at 0."}, 0.01,
    )  # fmt: skip


def histogram_bin(draw: random.Random) -> dict[str, Any]:
    """Which bar a value on an edge belongs to."""
    width = draw.choice([2, 3, 5])
    edges = [width * i for i in range(4)]
    values = [draw.randint(0, edges[-1]) for _ in range(7)] + [edges[1], edges[1], edges[-1]]
    count = sum(edges[1] <= value < edges[2] for value in values)
    closed = sum(edges[1] < value <= edges[2] for value in values)
    values.sort()
    return numeric(
        f"A histogram of {values} has the edges {edges}. How many values does the second bar count?",
        count, "values", f"It takes {edges[1]} ≤ value < {edges[2]}: the left edge belongs to it, the right one to the next.",
        {closed: "The left edge belongs to a bar, the right one does not (except for the last bar)."},
    )  # fmt: skip


def fill_median(draw: random.Random) -> dict[str, Any]:
    """The median of the training rows' known values."""
    train = [draw.randint(1, 30) for _ in range(draw.choice([4, 5]))] + [draw.randint(200, 900)]
    test = [draw.randint(40, 90) for _ in range(3)]
    middle = statistics.median(train)
    shown = [*map(str, train), "gap"]
    draw.shuffle(shown)
    return numeric(
        f"Training rows: {', '.join(shown)}. Test rows: {', '.join(map(str, test))}, gap. The gaps are filled with the median. With which number is the test row's gap filled?",
        middle, "", f"The known training values are {sorted(train)}; their median is {middle:g}. Test rows teach nothing.",
        {statistics.median(train + test): "The test rows were counted in.", statistics.median(test): "That is the median of the test rows.",
         round(statistics.mean(train), 2): "That is the mean, and the largest value has pulled it up."}, 0.01,
    )  # fmt: skip


def largest_deviation(draw: random.Random) -> dict[str, Any]:
    """(n - 1) / sqrt(n)."""
    n = draw.randint(4, 40)
    most = (n - 1) / math.sqrt(n)
    return numeric(
        f"A table has {n} rows. How many standard deviations (computed with n - 1) can one value lie from the mean at most?",
        round(most, 3), "deviations", f"(n - 1) / √n = {n - 1} / √{n} = {most:.3f}: an outlier stretches the deviation that it is measured by.",
        {round(math.sqrt(n), 3): "That is √n. One value among n cannot get so far."}, 0.01,
    )  # fmt: skip


def standardised(draw: random.Random) -> dict[str, Any]:
    """(x - mean) / s, with the training rows' numbers."""
    middle, half = draw.randint(5, 40), draw.randint(2, 6)
    train = [middle - half, middle + half] * 2
    new = middle + draw.choice([-3, -2, 2, 3, 4]) * half + draw.choice([-1, 1])
    found = (new - middle) / half
    return numeric(
        f"A scaler is fitted on the training rows {train} (deviation by dividing by n). What does it make of a test row of {new}?",
        round(found, 3), "", f"Mean {middle}, deviation {half}: ({new} - {middle}) / {half} = {found:.3f}.",
        {0: "A row must not be scaled by its own mean.", round((new - middle) / (2 * half), 3): "Divide by the deviation, not by the range."}, 0.02,
    )  # fmt: skip


def min_max(draw: random.Random) -> dict[str, Any]:
    """(x - min) / (max - min), also outside of 0 to 1."""
    low = draw.randint(0, 20)
    high = low + draw.choice([10, 20, 40])
    new = draw.choice([high + draw.randint(2, 10), draw.randint(low + 1, high - 1)])
    found = (new - low) / (high - low)
    return numeric(
        f"Min-max scaling is fitted on training rows from {low} to {high}. What does it make of a test row of {new}?",
        round(found, 3), "", f"({new} - {low}) / ({high} - {low}) = {found:.3f}. What lies outside the training rows comes out below 0 or above 1.",
        {1: "It is not cut off: only training rows are sure to lie between 0 and 1.", round(new / high, 3): "The smallest value has to be subtracted, above and below."}, 0.005,
    )  # fmt: skip


def one_hot_columns(draw: random.Random) -> dict[str, Any]:
    """Columns are learned from the training rows."""
    train = draw.sample(CITIES, draw.randint(2, 4))
    others = [city for city in CITIES if city not in train]
    rows = train + [draw.choice(train) for _ in range(draw.randint(1, 3))]
    draw.shuffle(rows)
    test = draw.sample(others, draw.randint(1, 2)) + [train[0]]
    return numeric(
        f"Training rows: {', '.join(rows)}. Test rows: {', '.join(test)}. A one-hot encoder is fitted properly. How many columns has the test table?",
        len(train), "columns", "One for each different value of the training rows; values that they lack become rows of zeros.",
        {len({*train, *test}): "Values of the test rows add no columns.", len(test): "The test has the columns that training has learned.",
         len(rows): "A column for each different value, not for each row."},
    )  # fmt: skip


def score_error(draw: random.Random) -> dict[str, Any]:
    """sqrt(p (1 - p) / n)."""
    p, n = draw.randint(60, 96) / 100, draw.choice([100, 200, 400, 900, 2500])
    error = 100 * math.sqrt(p * (1 - p) / n)
    return numeric(
        f"A model is right for {p:.0%} of {n:,} test rows. What is the standard error of this accuracy, in percentage points?",
        round(error, 3), "points", f"100 · √({p} · {1 - p:.2f} / {n}) = {error:.3f}.",
        {round(100 * p * (1 - p) / n, 3): "That is the variance: the root is missing.",
         round(100 * math.sqrt(p * (1 - p)), 3): "That is the deviation of a single row; the mean of n rows has 1/√n of it."}, error / 20,
    )  # fmt: skip


def grid_fits(draw: random.Random) -> dict[str, Any]:
    """Settings times folds, and the last fit."""
    first, second, folds = draw.randint(2, 5), draw.randint(2, 4), draw.choice([3, 5, 10])
    total = first * second * folds + 1
    return numeric(
        f"`GridSearchCV` tries {first} values of one setting with {second} of another, with cv={folds}, and is left as it is otherwise. How often is a model fitted?",
        total, "fits", f"{first} · {second} settings in {folds} folds, and the best one once more on all training rows: {total}.",
        {total - 1: "One is missing: the best setting is fitted again on all training rows.", first * second: "Each setting is fitted once in each fold.",
         (first + second) * folds + 1: "Every value meets every value of the other: the numbers are multiplied."},
    )  # fmt: skip


def r_squared(draw: random.Random) -> dict[str, Any]:
    """1 - SS_res / SS_tot."""
    truth = [draw.randint(0, 20) for _ in range(3)]
    truth.append(max(truth) + draw.randint(3, 10))
    guess = [each + draw.choice([-2, -1, 0, 1, 2]) for each in truth]
    guess[0] = truth[0] + 1
    mean = statistics.mean(truth)
    left, whole = sum((a - b) ** 2 for a, b in zip(truth, guess, strict=True)), sum((a - mean) ** 2 for a in truth)
    found = 1 - left / whole
    if not found > 0.2:
        return r_squared(draw)
    return numeric(
        f"Answers {truth}, predictions {guess}. What is R²?",
        round(found, 3), "", f"Squared errors of the model sum to {left}, those of the mean {mean:g} to {whole:g}: 1 - {left} / {whole:g} = {found:.3f}.",
        {round(left / whole, 3): "That is the share that is left; R² is the share that is gone."}, 0.005,
    )  # fmt: skip


def sigmoid(draw: random.Random) -> dict[str, Any]:
    """1 / (1 + e^-z)."""
    w, b, x = draw.choice([0.5, 1, 1.5, 2]), draw.choice([-2, -1, 1]), draw.choice([0.5, 1, 2, 3])
    z = w * x + b
    p = 1 / (1 + math.exp(-z))
    return numeric(
        f"A logistic regression has the weight {w:g} and the intercept {b}. Which probability does it give for x = {x:g}?",
        round(p, 3), "", f"z = {w:g} · {x:g} {'+' if b > 0 else '-'} {abs(b)} = {z:g}, and 1 / (1 + e^(-z)) = {p:.3f}.",
        {round(z, 3): "That is the score z; the sigmoid is still to come.", round(1 - p, 3): "That is the other class: mind the sign in the exponent."}, 0.01,
    )  # fmt: skip


def gini(draw: random.Random) -> dict[str, Any]:
    """1 - sum p²."""
    counts = [draw.randint(1, 8) for _ in range(draw.choice([2, 3]))]
    total = sum(counts)
    found = 1 - sum((each / total) ** 2 for each in counts)
    said = " and ".join(map(str, counts)) if len(counts) == 2 else f"{counts[0]}, {counts[1]} and {counts[2]}"
    return numeric(
        f"A leaf of a tree holds {said} rows of {len(counts)} classes. What is its Gini impurity?",
        round(found, 3), "", f"1 - Σ p² with p = {', '.join(f'{each}/{total}' for each in counts)}: {found:.3f}.",
        {round(1 - found, 3): "That is Σ p², the chance that two drawn rows agree.", round(1 - max(counts) / total, 3): "That is the error of the majority, another measure."}, 0.005,
    )  # fmt: skip


def moved_centre(draw: random.Random) -> dict[str, Any]:
    """A step of k-means on a line."""
    first, second = draw.randint(0, 4), draw.randint(12, 18)
    middle = (first + second) / 2
    points = draw.sample([x for x in range(22) if x != middle], 5)
    near = [x for x in points if x < middle]
    if not near or len(near) == len(points) or statistics.mean(near) == first:
        return moved_centre(draw)
    found = statistics.mean(near)
    return numeric(
        f"Points {sorted(points)} on a line, centres {first} and {second}. Where is the first centre after one step of k-means?",
        round(found, 3), "", f"Nearer to {first} (below {middle:g}) are {sorted(near)}; their mean is {found:.3f}.",
        {round(statistics.mean(points), 3): "That is the mean of all points; each centre moves to the mean of its own.", first: "That is where it was."}, 0.01,
    )  # fmt: skip


def kept_variance(draw: random.Random) -> dict[str, Any]:
    """s² over the sum of s²."""
    sizes = sorted((draw.randint(1, 9) for _ in range(4)), reverse=True)
    if sizes[0] == sizes[-1]:
        return kept_variance(draw)
    k = draw.randint(1, 2)
    whole, kept = sum(s * s for s in sizes), sum(s * s for s in sizes[:k])
    return numeric(
        f"A centred table has the singular values {sizes}. Which share of the variance {'does the first component' if k == 1 else 'do the first two components'} keep?",
        round(kept / whole, 3), "", f"Squares: {kept} of {whole}, {kept / whole:.3f}.",
        {round(sum(sizes[:k]) / sum(sizes), 3): "Variances are the *squares* of the singular values.", round(k / 4, 3): "Components do not keep equal shares: the first keeps most."}, 0.005,
    )  # fmt: skip


def numeric(stem: str, answer: float, unit: str, why: str, mistakes: dict[float, str], tolerance: float = 0.0) -> dict[str, Any]:
    """Fields of a numeric question; a mistake that happens to be right is none."""
    told = {f"{wrong:g}": text for wrong, text in mistakes.items() if abs(float(f"{wrong:g}") - answer) > tolerance}
    tolerance = min(tolerance, abs(answer) / 5) if answer else tolerance
    return {"stem": stem, "answer": float(answer), "tolerance": tolerance, "unit": unit, "why": why, "mistakes": told}


def printed(code: str) -> str:
    """What a program prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {})  # noqa: S102 (our own code)
    return out.getvalue().strip()
