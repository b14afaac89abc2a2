"""A roadmap as SVG: chapters as boxes along an S-curve, their leaves on dashed lines beside them.

States are told by a sign and a word, not by colour alone. The page shows the same as an ordered list, which is what
narrow screens and readers of the text get.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from itertools import pairwise

from bottega.course.learner.learner import Overview, Standing
from bottega.course.library import Chapter
from bottega.course.schema import Language

WIDTH = 960
BOX, LEAF, GAP = (220, 58), (250, 30), 8
SIGNS = {"new": "○", "learning": "◐", "mastered": "●", "due": "↻"}
WORDS = {"new": "not begun", "learning": "begun", "mastered": "mastered", "due": "review due"}


def roadmap_svg(chapters: Sequence[Chapter], overview: Overview, language: Language = "en") -> str:
    """The drawing of one part of the course."""
    rows = [max(BOX[1], len(c.data.leaves) * (LEAF[1] + GAP) - GAP) + 44 for c in chapters]
    centres: list[tuple[float, float]] = []
    y = 20.0
    for index, height in enumerate(rows):
        centres.append((WIDTH * (0.36 if index % 2 else 0.64), y + height / 2))
        y += height
    parts = [f'<path class="spine" d="{_spine(centres)}"/>']
    for index, (chapter, (x, middle)) in enumerate(zip(chapters, centres, strict=True)):
        parts += _leaves(chapter, overview.leaves, x, middle, left=index % 2 == 0, language=language)
        parts.append(_box(chapter, overview.chapters[chapter.id], x, middle, language))
    return (
        f'<svg class="roadmap" viewBox="0 0 {WIDTH} {y + 10:.0f}" role="group" aria-label="Roadmap; the list '
        f'below says the same">{"".join(parts)}</svg>'
    )


def _spine(points: Sequence[tuple[float, float]]) -> str:
    if not points:
        return ""
    path = f"M{points[0][0]:.0f} {points[0][1]:.0f}"
    for (x0, y0), (x1, y1) in pairwise(points):
        bend = (y1 - y0) / 2
        path += f"C{x0:.0f} {y0 + bend:.0f} {x1:.0f} {y1 - bend:.0f} {x1:.0f} {y1:.0f}"
    return path


def _box(chapter: Chapter, standing: Standing, x: float, y: float, language: Language) -> str:
    width, height = BOX
    title = _lines(chapter.data.title.of(language), 26)
    state = "not written yet" if not chapter.written else f"{SIGNS[standing.status]} {standing.proficiency:.0%}"
    first = y - (4 if len(title) == 1 else 12)
    text = "".join(
        f'<text x="{x:.0f}" y="{first + 17 * i:.0f}" class="title">{html.escape(line)}</text>'
        for i, line in enumerate(title)
    )
    shape = (
        f'<rect x="{x - width / 2:.0f}" y="{y - height / 2:.0f}" width="{width}" height="{height}" rx="10"/>{text}'
        f'<text x="{x:.0f}" y="{y + 22:.0f}" class="state">{state}</text>'
    )
    kind = standing.status if chapter.written else "unwritten"
    drawn = f'<g class="chapter {kind}">{shape}</g>'
    return f'<a href="/course/{chapter.id}" tabindex="-1">{drawn}</a>' if chapter.written else drawn


def _leaves(
    chapter: Chapter, standings: Mapping[str, Standing], x: float, y: float, *, left: bool, language: Language
) -> list[str]:
    width, height = LEAF
    count = len(chapter.data.leaves)
    begin = y - (count * (height + GAP) - GAP) / 2
    edge = x - BOX[0] / 2 if left else x + BOX[0] / 2
    near = edge - 70 if left else edge + 70
    found = []
    for index, leaf in enumerate(chapter.data.leaves):
        top = begin + index * (height + GAP)
        standing = standings[leaf.id]
        sign = SIGNS[standing.status] if chapter.written else ""
        middle = top + height / 2
        bend = (edge + near) / 2
        curve = f"M{edge:.0f} {y:.0f}C{bend:.0f} {y:.0f} {bend:.0f} {middle:.0f} {near:.0f} {middle:.0f}"
        found.append(f'<path class="twig" d="{curve}"/>')
        left_edge = near - width if left else near
        label = html.escape(_shorten(f"{sign} {leaf.title.of(language)}".strip(), 31))
        kind = standing.status if chapter.written else "unwritten"
        box = f'<rect x="{left_edge:.0f}" y="{top:.0f}" width="{width}" height="{height}" rx="15"/>'
        text = f'<text x="{left_edge + width / 2:.0f}" y="{middle + 4.5:.0f}">{label}</text>'
        found.append(f'<g class="leaf {kind}">{box}{text}</g>')
    return found


def _lines(text: str, longest: int) -> list[str]:
    """One line or two."""
    if len(text) <= longest or " " not in text:
        return [_shorten(text, longest)]
    words, first = text.split(), ""
    while words and len(f"{first} {words[0]}".strip()) <= longest:
        first = f"{first} {words.pop(0)}".strip()
    return [first, _shorten(" ".join(words), longest)] if first else [_shorten(text, longest)]


def _shorten(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
