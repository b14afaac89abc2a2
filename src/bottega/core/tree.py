"""A tree as inline SVG and as a table (`core.view.Tree`): what a search looked at, and what it kept."""

from __future__ import annotations

from bottega.core.chart import CHARACTER, WIDTH, measured, open_svg, safe, shorten
from bottega.core.view import Table, Tree

ROW, TOP, GAP = 20, 16, 26  # pixels between leaves, above them, and between a name and the next column
MOST_NAME = 18


def tree_chart(tree: Tree, identifier: str) -> str:
    """The SVG element: roots on the left, a column for each depth, a line for each leaf."""
    depth, y = _depths(tree), _heights(tree)
    widths = [0.0] * (max(depth, default=0) + 1)
    for branch, at in zip(tree.branches, depth, strict=True):
        words = len(_name(branch.text)) + len(measured(branch.value, False)) + 1
        widths[at] = max(widths[at], words * CHARACTER + GAP)
    total = sum(widths) or 1.0
    scale = max(WIDTH, total) / total
    starts = [sum(widths[:at]) * scale + 4 for at in range(len(widths))]
    height = max(y, default=0.0) + ROW
    parts = [open_svg(identifier, tree.title, _summary(tree), height, width=max(WIDTH, total))]
    for index, branch in enumerate(tree.branches):
        if branch.parent >= 0:
            parent = tree.branches[branch.parent]
            words = f"{_name(parent.text)} {measured(parent.value, False)}"
            begin = starts[depth[branch.parent]] + len(words) * CHARACTER + 4
            end = starts[depth[index]] - 4
            bend = (begin + end) / 2
            from_y, to_y = y[branch.parent] - 4, y[index] - 4
            kind = "edge" if branch.kept else "edge dropped"
            parts.append(f'<path class="{kind}" d="M{begin:.1f} {from_y:.1f}C{bend:.1f} {from_y:.1f} '
                         f'{bend:.1f} {to_y:.1f} {end:.1f} {to_y:.1f}"/>')  # fmt: skip
    for index, branch in enumerate(tree.branches):
        kind = "name kept" if branch.kept else "name dropped"
        at = f'x="{starts[depth[index]]:.1f}" y="{y[index]:.1f}"'
        value = f'<tspan class="value"> {measured(branch.value, False)}</tspan>'
        parts.append(f'<text class="{kind}" {at}>{safe(_name(branch.text))}{value}</text>')
    return "".join([*parts, "</svg>"])


def _name(text: str) -> str:
    return shorten(text, MOST_NAME)


def _depths(tree: Tree) -> list[int]:
    found: list[int] = []
    for branch in tree.branches:
        found.append(0 if branch.parent < 0 else found[branch.parent] + 1)
    return found


def _heights(tree: Tree) -> list[float]:
    """The baseline of each node: leaves one below the other in their order, parents in the middle of their children."""
    children: dict[int, list[int]] = {}
    for index, branch in enumerate(tree.branches):
        children.setdefault(branch.parent, []).append(index)
    found, line = [0.0] * len(tree.branches), 0

    def place(index: int) -> None:
        nonlocal line
        below = children.get(index, [])
        for each in below:
            place(each)
        if below:
            found[index] = (found[below[0]] + found[below[-1]]) / 2
        else:
            found[index] = float(TOP + line * ROW)
            line += 1

    for root in children.get(-1, []):
        place(root)
    return found


def tree_twin(tree: Tree) -> Table:
    """The nodes with the way to each, as a table."""
    ways: list[str] = []
    for branch in tree.branches:
        ways.append(branch.text if branch.parent < 0 else f"{ways[branch.parent]} {branch.text}")
    rows = [[way, branch.value, branch.kept] for way, branch in zip(ways, tree.branches, strict=True)]
    return Table(tree.title, ["way", tree.value_label, "kept"], rows)


def _summary(tree: Tree) -> str:
    kept = sum(branch.kept for branch in tree.branches)
    return f"A tree of {len(tree.branches)} nodes, {kept} of them kept; the table below names each with its way."
