"""A dirty table, and plots of it.

A table of flats is made up, then spoiled as real tables are: three spellings of a city, numbers with commas, rows that
came twice, gaps, and sizes in square feet. It is cleaned step by step and held against what it was before. Then it is
drawn with matplotlib and seaborn, and what can be seen in each plot is measured.
"""

import io
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Bar, Bars, Chart, Series, Table
from bottega.course.lab import Effect, Event, Say, Show, Step, Value

BUDGET = 10
CITIES = {"Genoa": 9.0, "Milan": 18.0, "Turin": 10.0, "Lecce": 6.0}  # rent of a square metre
FEET = 10.764  # square feet in a square metre


class Params(Config):
    """What can be changed."""

    rows: int = Field(default=600, ge=100, le=5000)
    """Flats."""
    feet: float = Field(default=0.08, ge=0, le=0.4)
    """Share of sizes given in square feet. Try 0.25: the usual rules stop finding them."""
    gaps: float = Field(default=0.5, ge=0, le=0.8)
    """Chance that the rent of a large flat is missing; a small one's is a quarter of it."""


def run(params: Params) -> Iterator[Event]:
    """Spoil, read, clean, group, join, and draw."""
    import pandas as pd

    truth, text = spoiled(params)
    raw: Any = pd.read_csv(io.StringIO(text))
    yield Show("raw", Table("The first rows, as read", list(raw.columns), [tuple(map(str, row)) for row in raw.head(6).values.tolist()]))
    spellings = raw["city"].nunique()
    yield Say(f"{len(raw)} rows; the column rent is read as {raw['rent'].dtype}; {spellings} spellings of {len(CITIES)} cities.")
    yield Step(1, 5, "read")

    flats: Any = raw.drop_duplicates()
    flats = flats.assign(
        city=flats["city"].str.strip().str.title(),
        rent=pd.to_numeric(flats["rent"].str.replace(",", ""), errors="coerce"),
    )
    steps = [("as read", len(raw), spellings, str(raw["rent"].dtype)),
             ("cleaned", len(flats), flats["city"].nunique(), str(flats["rent"].dtype))]  # fmt: skip
    yield Show("steps", Table("Before and after", ["table", "rows", "spellings of cities", "type of rent"], steps))

    wrong = truth.loc[flats["flat"], "feet"].to_numpy()
    size = flats["size"]
    z_rule = ((size - size.mean()) / size.std()).abs() > 3
    low, high = size.quantile([0.25, 0.75])
    iqr_rule = size > high + 1.5 * (high - low)
    rules = [(name, int(found.sum()), int((found & wrong).sum()), int(wrong.sum()))
             for name, found in (("3 standard deviations", z_rule), ("1.5 quartile ranges", iqr_rule))]  # fmt: skip
    yield Show("outliers", Table("Sizes that two rules call outliers", ["rule", "found", "of these in feet", "in feet in all"], rules))
    flats = flats.assign(size=size.where(size < 300, size / FEET))  # no flat of the table has 300 m²
    yield Step(2, 5, "cleaned")

    rents = truth["rent"]
    share = float(flats["rent"].isna().mean())
    dropped = float(flats["rent"].mean())
    filled = flats["rent"].fillna(flats["rent"].median())
    per_metre = (flats["rent"] / flats["size"]).groupby(flats["city"]).transform("median")
    modelled = flats["rent"].fillna(per_metre * flats["size"])
    ways = [("the truth", float(rents.mean()), float(rents.std())), ("gaps dropped", dropped, float(flats["rent"].std())),
            ("gaps filled with the median", float(filled.mean()), float(filled.std())),
            ("filled from city and size", float(modelled.mean()), float(modelled.std()))]  # fmt: skip
    yield Show("gaps", Table("Rents after each way of filling gaps", ["way", "mean", "standard deviation"],
                             [(name, f"{mean:.0f}", f"{sd:.0f}") for name, mean, sd in ways]))  # fmt: skip
    yield Step(3, 5, "filled")

    flats = flats.assign(rent=modelled)
    flats = flats.assign(metre=flats["rent"] / flats["size"])
    groups = flats.groupby("city", sort=True).agg(flats=("flat", "size"), rent=("rent", "mean"), metre=("metre", "median"))
    rows = [(city, int(row.flats), f"{row.rent:.0f}", f"{row.metre:.2f}", CITIES[city]) for city, row in groups.iterrows()]
    yield Show("groups", Table("By city", ["city", "flats", "mean rent", "median rent of a m²", "in truth"], rows))
    regions = pd.DataFrame({"city": [*CITIES, "Milan"], "region": ["Liguria", "Lombardy", "Piedmont", "Apulia", "Lombardia"]})
    joined = flats.merge(regions, on="city", how="left")
    try:
        flats.merge(regions, on="city", how="left", validate="many_to_one")
        said = ""
    except pd.errors.MergeError as error:
        said = str(error).splitlines()[0]
    yield Say(f"Joined with a table that has Milan twice: {len(flats)} rows became {len(joined)}. With validate: {said}")
    yield Step(4, 5, "joined")
    facts = yield from drawn(raw["size"], flats)
    yield Step(5, 5, "drawn")

    errors = {"gaps": abs(dropped - rents.mean()), "filled": abs(modelled.mean() - rents.mean())}
    errors = {name: float(error) for name, error in errors.items()}
    yield Value("rows", len(raw), "rows", 0)
    yield Value("twice", len(raw) - len(flats), "rows", 0)
    yield Value("spellings", spellings, "spellings", 0)
    yield Value("in_feet", int(wrong.sum()), "flats", 0)
    yield Value("found_z", rules[0][2], "flats", 0)
    yield Value("found_iqr", rules[1][2], "flats", 0)
    yield Value("false_iqr", rules[1][1] - rules[1][2], "flats", 0)
    yield Value("missing", share, "share", 0.01)
    yield Value("mean_truth", ways[0][1], "euros", 0.001)
    yield Value("mean_dropped", ways[1][1], "euros", 0.001)
    yield Value("mean_filled", ways[2][1], "euros", 0.001)
    yield Value("mean_modelled", ways[3][1], "euros", 0.001)
    yield Value("sd_truth", ways[0][2], "euros", 0.001)
    yield Value("sd_filled", ways[2][2], "euros", 0.001)
    yield Value("joined", len(joined), "rows", 0)
    yield Value("cleaned", len(flats), "rows", 0)
    for name, value in facts.items():
        if name == "same":
            continue
        yield Value(name, value, "", 0.05)
    yield Effect("cleaning leaves one row for each flat", len(flats) == len(truth))
    yield Effect("and four spellings", set(flats["city"]) == set(CITIES))
    yield Effect("the rule of three deviations misses sizes in feet that the quartiles find", rules[0][2] < rules[1][2])
    yield Effect("gaps that are not by chance shift the mean by 40 at least", errors["gaps"] > 40)
    yield Effect("filling from city and size takes most of it back", errors["filled"] < errors["gaps"] / 3)
    yield Effect("filling with one number shrinks the spread", float(filled.std()) < 0.95 * float(rents.std()))
    yield Effect("a key that is there twice makes rows", len(joined) > len(flats))
    yield Effect("and validate notices", said != "")
    yield Effect("a few sizes in feet press nine tenths of the flats into four bars of thirty", facts["pressed"] >= 0.9)
    yield Effect("an axis that begins at 90 % makes a difference look three times as large", facts["looks"] > 3 * facts["is"])
    yield Effect("two columns with the same means, spreads and correlation are told apart by their plot", facts["same"] < 0.01)


def spoiled(params: Params) -> tuple[Any, str]:
    """The flats as they are, with a column that says whether the size was given in feet, and the text of the dirty table."""
    import pandas as pd

    draw = np.random.default_rng(4)
    city = draw.choice(list(CITIES), params.rows)
    size = np.round(draw.gamma(9, 9, params.rows) + 20)
    rent = np.round(size * [CITIES[each] for each in city] * draw.lognormal(0, 0.08, params.rows))
    feet = draw.random(params.rows) < params.feet
    truth = pd.DataFrame({"city": city, "size": size, "rent": rent, "feet": feet})
    chance = np.where(size > np.median(size), params.gaps, params.gaps / 4)
    gap = draw.random(params.rows) < chance
    lines = []
    for i in range(params.rows):
        name = draw.choice([city[i], city[i].lower(), city[i].upper() + " "], p=[0.8, 0.1, 0.1])
        told = round(size[i] * FEET) if feet[i] else int(size[i])
        price = draw.choice(["n/a", "-", ""]) if gap[i] else f'"{int(rent[i]):,}"'
        lines.append(f"{i},{name},{told},{price}")
    again = [lines[i] for i in draw.choice(params.rows, params.rows // 20, replace=False)]
    lines += again
    draw.shuffle(lines)
    return truth, "flat,city,size,rent\n" + "\n".join(lines) + "\n"


def drawn(sizes: Any, flats: Any) -> Generator[Event, None, dict[str, float]]:
    """Draw, without a screen, and measure what was drawn."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import seaborn as sns

    figure, (left, right) = plt.subplots(1, 2)
    counts, _, _ = left.hist(sizes, bins=30)
    clean_counts, edges, _ = right.hist(flats["size"], bins=30)
    pressed = float(counts[:4].sum() / counts.sum())
    middle = [(edges[i] + edges[i + 1]) / 2 for i in range(0, 30, 2)]
    yield Show("histogram", Bars("Sizes after cleaning", "flats", [
        Bar(f"about {middle[i]:.0f} m²", float(clean_counts[2 * i] + clean_counts[2 * i + 1])) for i in range(15)
    ]))  # fmt: skip
    plt.close(figure)

    means = flats.groupby("city")["metre"].mean()
    pair = means[["Turin", "Genoa"]]
    figure, axes = plt.subplots()
    bars = axes.bar(list(pair.index), list(pair))
    heights = []
    for bottom in (0.0, 0.9 * float(pair.min())):
        axes.set_ylim(bottom, 1.05 * float(pair.max()))
        figure.canvas.draw()
        tops = [axes.transData.transform((0, bar.get_height()))[1] for bar in bars]
        base = axes.transAxes.transform((0, 0))[1]
        heights.append((tops[0] - base) / (tops[1] - base) - 1)
    plt.close(figure)

    figure, axes = plt.subplots()
    sns.boxplot(data=flats, x="city", y="metre", order=sorted(set(flats["city"])), ax=axes)
    labels = axes.get_xlabel(), axes.get_ylabel(), [tick.get_text() for tick in axes.get_xticklabels()]
    yield Say(f"seaborn named the axes {labels[0]!r} and {labels[1]!r} and drew a box for each of {', '.join(labels[2])}.")
    plt.close(figure)

    x = np.linspace(-3, 3, 60)
    noise = np.random.default_rng(0).normal(size=60)
    noise -= np.polyval(np.polyfit(x, noise, 1), x)
    bent = x**2 - np.polyval(np.polyfit(x, x**2, 1), x)
    cloud, curve = (x + 1.5 * each / each.std() for each in (noise, bent))
    told = [(y.mean(), y.std(), np.corrcoef(x, y)[0, 1]) for y in (cloud, curve)]
    yield Show("summary", Table("Two columns, one summary", ["column", "mean", "standard deviation", "correlation with x"],
                                [(name, *(f"{abs(value):.3f}" for value in each)) for name, each in zip(("noisy line", "curve"), told, strict=True)]))  # fmt: skip
    yield Show("plots", Chart("The same two columns, drawn", "x", "y", [
        Series("noisy line", [(float(a), float(b)) for a, b in zip(x, cloud, strict=True)]),
        Series("curve", [(float(a), float(b)) for a, b in zip(x, curve, strict=True)]),
    ]))  # fmt: skip
    same = max(abs(a - b) for a, b in zip(*told, strict=True))
    return {"pressed": pressed, "is": float(heights[0]), "looks": float(heights[1]), "same": float(same),
            "boxes": float(len(labels[2])), "correlation": float(told[0][2])}  # fmt: skip
