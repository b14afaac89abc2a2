import itertools
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bottega.core.chart import TWIN_ROWS, bar_chart, bar_twin, line_chart, line_twin, log_ticks, nice_ticks
from bottega.core.heat import heat_map, heat_twin
from bottega.core.report import DARK, LIGHT, Fact, Section, cell_text, render_report, write_report
from bottega.core.tree import tree_chart, tree_twin
from bottega.core.view import Bar, Bars, Branch, Chart, Heat, Series, Spans, Table, Text, Tree

HOSTILE = "</title><script>alert('x')</script><img src=x onerror=\"y\"> & \" ' ]]>"
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Checks that tags nest and close, and gathers what the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> repeats an attribute"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in self.open, f"<{tag}/> outside SVG"
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data))

    def of(self, *tags: str) -> list[str]:
        return [text for tag, text in self.texts if tag in tags]


def loss_chart(count: int = 20, name: str = "training") -> Chart:
    return Chart("Loss", "step", "nats", [Series(name, [(i, 5 / (i + 1)) for i in range(count)])])


def full_report(word: str = "plain") -> str:
    blocks = [
        Text(f"{word}\nsecond line"),
        Table(word, (word, "count"), [(word, 3), ("b", 12345), ("c", None)], note=word),
        Spans(word, [(word, "even"), ("x", "special")], {"even": word}),
        Heat(word, word, word, [word, "b"], [word, "c"], [[0.5, None], [0.1, 1.0]], [[word, ""], ["x", word]]),
        Tree(word, word, [Branch(word, -1, 0.0), Branch(word, 0, -1.5, kept=False)]),
        Chart(word, word, word, [Series(word, [(1, 2), (2, 1)]), Series(word + "2", [(1, 1), (2, 3)])]),
        Bars(word, word, [Bar(word, 0.5, 0.4, 0.6, word), Bar("chance", 0.25, group=word, baseline=True)], note=word),
    ]
    sections = [Section(word, blocks), Section(word, blocks), Section("1 last", []), Section("四", [])]
    return render_report(word, sections, subtitle=word, facts=[Fact(word, word, word)])


@pytest.mark.parametrize("word", ["plain", HOSTILE])
def test_page_is_well_formed_and_needs_nothing_from_outside(word: str) -> None:
    text = full_report(word)
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert not {"script", "img", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on") and name not in {"style", "src"}
            assert name != "href" or (value or "").startswith("#"), (tag, value)
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text)
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy and policy.startswith("default-src 'none'")


@pytest.mark.parametrize("word", ["plain", HOSTILE])
def test_hostile_words_arrive_as_text(word: str) -> None:
    page = Page(full_report(word))
    for tag in ("h1", "h2", "p", "caption", "th", "span", "title", "desc", "text", "figcaption", "dt", "strong"):
        assert any(text[:12] in word or word[:12] in text for text in page.of(tag)), tag
    assert word in page.of("h1") and word in page.of("caption")


def test_page_is_accessible() -> None:
    page = Page(full_report())
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        for name in (attributes.get("aria-labelledby") or "").split():
            assert name in ids
        target = attributes.get("href")
        assert target is None or target[1:] in ids
    assert next(a for t, a in page.tags if t == "html") == {"lang": "en"}
    levels = [int(t[1]) for t, _ in page.tags if re.fullmatch(r"h[1-6]", t)]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert all(a.get("scope") in {"row", "col"} for t, a in page.tags if t == "th")
    tables = sum(t == "table" for t, _ in page.tags)
    assert tables == sum(t == "caption" for t, _ in page.tags) > 0
    drawings = [a for t, a in page.tags if t == "svg"]
    assert len(drawings) == 8 and all(a["role"] == "img" for a in drawings)


def test_every_chart_has_its_table_twin_with_the_same_numbers() -> None:
    chart = loss_chart(12)
    page = Page(render_report("r", [Section("s", [chart])]))
    assert sum(t == "details" for t, _ in page.tags) == 1
    cells = page.of("th", "td")
    assert cells[:2] == ["step", "training"]
    assert cells[2:] == [text for x, y in chart.series[0].points for text in (str(x), cell_text(y))]
    assert [float(text) for text in cells[3::2]] == pytest.approx([5 / (i + 1) for i in range(12)], rel=1e-5)


def test_twin_is_thinned_but_keeps_every_series_and_its_ends() -> None:
    dense = Series("dense", [(float(i), i / 7) for i in range(5000)])
    sparse = Series("sparse", [(i + 0.5, float(i)) for i in range(0, 5000, 500)])
    twin = line_twin(Chart("t", "x", "y", [dense, sparse]))
    assert len(twin.rows) <= TWIN_ROWS
    assert [row[0] for row in twin.rows if row[2] is not None] == [x for x, _ in sparse.points]
    assert twin.rows[0][:2] == [0.0, 0.0] and [4999.0, 4999 / 7, None] in twin.rows
    assert all(row[1] is None or row[1] == row[0] / 7 for row in twin.rows)
    assert twin.note == f"{len(twin.rows)} of 5010 points, evenly thinned."


def test_bar_twin_has_values_and_intervals() -> None:
    bars = Bars("t", "accuracy", [Bar("model", 0.5, 0.4, 0.6), Bar("chance", 0.25, baseline=True)], percent=True)
    assert bar_twin(bars).rows == [["model", 0.5, 0.4, 0.6], ["chance", 0.25, None, None]]
    assert "50.0 %" in bar_chart(bars, "b") and "whisker" in bar_chart(bars, "b")


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (0.13, 0.31, [0.15, 0.2, 0.25, 0.3]), (-3, 3, [-3, -2, -1, 0, 1, 2, 3])],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert nice_ticks(low, high) == ticks


@pytest.mark.parametrize(("low", "high"), [(1e-6, 1e-3), (1, 1e7), (3, 40), (2.1, 2.4), (1e-12, 1e12)])
def test_log_ticks_lie_inside_and_are_few(low: float, high: float) -> None:
    ticks = log_ticks(low, high)
    assert 3 <= len(ticks) <= 14 and all(low <= tick <= high for tick in ticks) and ticks == sorted(ticks)


def coordinates(svg: str) -> list[list[tuple[float, float]]]:
    lines = re.findall(r'points="([^"]*)"', svg)
    return [[(float(a), float(b)) for a, b in (pair.split(",") for pair in line.split())] for line in lines]


def test_line_is_drawn_to_scale_on_linear_and_log_axes() -> None:
    points = [(1.0, 1.0), (10.0, 10.0), (100.0, 100.0)]
    for log in (True, False):
        chart = Chart("t", "x", "y", [Series("s", points)], log_x=log, log_y=log)
        ((x0, y0), (x1, y1), (x2, y2)) = coordinates(line_chart(chart, "c"))[0]
        part = 0.5 if log else 9 / 99
        assert (x1 - x0) / (x2 - x0) == pytest.approx(part, abs=0.002)
        assert (y1 - y0) / (y2 - y0) == pytest.approx(part, abs=0.002)
        assert y2 < y0


def test_undrawable_points_break_the_line_and_stay_visible_in_the_table() -> None:
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, math.nan), (3.0, 2.0), (4.0, 1.0)]
    chart = Chart("t", "x", "y", [Series("s", points)])
    assert [len(line) for line in coordinates(line_chart(chart, "c"))] == [2, 2]
    assert "not finite" in render_report("r", [Section("s", [chart])])
    assert "nan" not in line_chart(chart, "c")
    assert [len(line) for line in coordinates(line_chart(Chart("t", "x", "y", chart.series, log_x=True), "c"))] == [2]


def test_thinning_of_long_lines_keeps_spikes() -> None:
    points = [(float(i), 100.0 if i == 12_345 else 1.0) for i in range(20_000)]
    (line,) = coordinates(line_chart(Chart("t", "x", "y", [Series("s", points)]), "c"))
    assert len(line) < 1500 and min(y for _, y in line) < 40


@pytest.mark.parametrize("points", [[], [(1.0, 2.0)], [(1.0, 2.0), (2.0, 2.0)], [(1.0, 0.0)]])
def test_empty_and_constant_charts_are_still_charts(points: list[tuple[float, float]]) -> None:
    Page(line_chart(Chart("t", "x", "y", [Series("s", points), Series("none", [])]), "c"))
    Page(bar_chart(Bars("t", "v", [Bar("b", y) for _, y in points]), "b"))


def test_series_differ_without_colour_and_labels_do_not_overlap() -> None:
    series = [Series(f"run {i}", [(0.0, 1.0), (1.0, 1.0 + i / 1000)]) for i in range(5)]
    svg = line_chart(Chart("t", "x", "y", series), "c")
    dashes = [re.search(r'dasharray="([^"]*)"', tag) for tag in re.findall(r"<polyline[^>]*>", svg)]
    assert len({match.group(1) if match else "" for match in dashes}) == 5
    heights = sorted(float(y) for y in re.findall(r'class="name c\d" x="[^"]*" y="([^"]*)"', svg))
    assert len(heights) == 5 and all(b - a >= 14 for a, b in itertools.pairwise(heights))


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_contrast_meets_wcag_aa(colours: dict[str, str]) -> None:
    def contrast(a: str, b: str) -> float:
        dark, light = sorted((luminance(colours[a]), luminance(colours[b])))
        return (light + 0.05) / (dark + 0.05)

    for text in ("ink", "soft", "accent", "c0", "c1", "c2", "c3", "c4", "c5"):
        assert contrast(text, "card") >= 4.5 and contrast(text, "paper") >= 4.5, text
    for ground in ("even", "odd", "good", "bad"):
        assert contrast("ink", ground) >= 4.5, ground
    assert contrast("bar", "card") >= 3 and contrast("base", "card") >= 3


def test_write_report_replaces_the_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    write_report(path, "new", [Section("s", [loss_chart()])])
    assert path.read_text("utf-8").endswith("</html>\n") and [p.name for p in tmp_path.iterdir()] == ["report.html"]


def cells(heat: Heat) -> list[tuple[float, str]]:
    """Opacity and what is said of each cell that is drawn."""
    found = re.findall(r'<rect class="cell"[^>]*fill-opacity="([0-9.]+)"><title>([^<]*)</title>', heat_map(heat, "h"))
    return [(float(opacity), said) for opacity, said in found]


def test_a_heat_map_is_darkest_where_the_value_is_largest() -> None:
    heat = Heat("Attention", "from", "to", ["a", "b"], ["a", "b"], [[1.0, None], [0.25, 0.75]], low=0, high=1)
    assert cells(heat) == [(1.0, "a, a: 1"), (0.25, "b, a: 0.25"), (0.75, "b, b: 0.75")]
    twin = heat_twin(heat)
    assert twin.rows == [["a", 1.0, None], ["b", 0.25, 0.75]] and list(twin.columns[1:]) == ["a", "b"]
    landscape = Heat("Loss", "x", "y", ["0"], ["0", "1", "2"], [[3.0, 1.0, 2.0]], inverted=True)
    assert [opacity for opacity, _ in cells(landscape)] == [1.0, 0.5]  # the largest is blank, and not drawn
    lens = Heat("Lens", "layer", "word", ["0"], ["a", "b"], [[1.0, 0.0]], [["fox", "owl"]], low=0, high=1)
    drawing = heat_map(lens, "h")
    assert ">fox</text>" in drawing and ">owl</text>" in drawing
    assert max(opacity for opacity, _ in cells(lens)) == 0.6  # text stays readable
    assert heat_twin(lens).rows == [["0", "fox 1.0", "owl 0.0"]]
    Heat("Constant", "x", "y", ["0"], ["0"], [[2.0]]).shade(2.0)


def test_a_tree_grows_to_the_right_and_says_what_was_dropped() -> None:
    dropped = Branch("owl", 0, -2.0, kept=False)
    branches = [Branch("the", -1, 0.0), Branch("fox", 0, -1.0), dropped, Branch("ran", 1, -1.5)]
    drawing = tree_chart(Tree("Beams", "ln p", branches), "t")
    places = {
        name: (float(x), float(y))
        for x, y, name in re.findall(r'<text class="name [^"]*" x="([0-9.]+)" y="([0-9.]+)">(\w+)<', drawing)
    }
    assert places["the"][0] < places["fox"][0] == places["owl"][0] < places["ran"][0]
    assert places["fox"][1] == places["ran"][1] < places["the"][1] < places["owl"][1]
    assert drawing.count('class="edge dropped"') == 1 and drawing.count('class="edge"') == 2
    assert tree_twin(Tree("Beams", "ln p", branches)).rows[3] == ["the fox ran", -1.5, True]
    assert "<svg" in tree_chart(Tree("Empty", "ln p", []), "t")
