"""`bottega arena`: ratings from files of votes."""

from __future__ import annotations

import json
from pathlib import Path

from bottega.core.atomic import write_json, write_text
from bottega.core.plan import Check, Cost, Plan, Specs
from bottega.core.report import Section, write_report
from bottega.core.verb import Context, Result
from bottega.core.view import human_bytes
from bottega.evaluate.arena.config import RateModels
from bottega.evaluate.arena.ratings import rate
from bottega.evaluate.arena.view import RATINGS_FILE, arena_blocks, preference_text
from bottega.evaluate.arena.votes import read_votes, votes_as_preferences

REPORT_FILE = "report.html"
BYTES_PER_SECOND = 2e7


def plan_arena(config: RateModels, specs: Specs) -> Plan:  # noqa: ARG001 (every plan is given the specs)
    """Check that the files are there, and that what is written has its place."""
    inputs = {f"votes.{number}": path for number, path in enumerate(config.votes)}
    sizes = {path: path.stat().st_size if path.is_file() else None for path in config.votes}
    checks = [
        Check(
            str(path), bool(size), "there is no such file" if size is None else human_bytes(size) if size else "empty"
        )
        for path, size in sizes.items()
    ]
    if len(sizes) < len(config.votes):
        checks.append(Check("votes", False, "a file is given twice"))
    if config.preferences is not None:
        checks.append(_preferences_check(config, config.preferences))
    read = sum(size or 0 for size in sizes.values())
    styled = ", with and without style" if config.style_control else ""
    return Plan(
        verb="arena",
        config=config,
        out=config.out,
        inputs=inputs,
        checks=checks,
        work=[f"fit Bradley-Terry{styled} and Elo to the votes, and to {config.resamples} resamples of them"],
        cost=Cost(bytes_read=read, bytes_written=read if config.preferences else 1 << 20),
    )


def run_arena(plan: Plan, context: Context) -> Result:
    """Read, rate, write, show."""
    config = plan.config
    assert isinstance(config, RateModels)
    votes = read_votes(config.votes)
    fits = 2 + (config.resamples if config.style_control else 0)
    with context.reporter.bar("rating", fits, "fits") as bar:
        data = rate(
            votes,
            bar=bar,
            anchor=config.anchor,
            anchor_rating=config.anchor_rating,
            style_control=config.style_control,
            k=config.k,
            resamples=config.resamples,
            seed=config.seed,
        )
    blocks = arena_blocks(data)
    if config.preferences is not None:
        rows = votes_as_preferences(votes)
        config.preferences.parent.mkdir(parents=True, exist_ok=True)
        write_text(config.preferences, "".join(json.dumps(row) + "\n" for row in rows))
        ties = sum(vote.winner not in ("a", "b") for vote in votes)
        data["preferences"] = {"rows": len(rows), "ties": ties, "incomplete": len(votes) - ties - len(rows)}
        blocks.append(preference_text(data))
    if plan.out is not None:
        write_json(context.out / RATINGS_FILE, data)
        title = f"{data['votes']} votes on {len(data['models'])} models"
        write_report(context.out / REPORT_FILE, "Arena", [Section("Ratings", blocks)], subtitle=title)
    return Result(data, blocks)


def _preferences_check(config: RateModels, path: Path) -> Check:
    """Whether the file of preferences may be written: it is no input, is not in OUT, and is free or may be replaced."""
    taken = {vote.resolve() for vote in config.votes}
    if path.resolve() in taken:
        return Check("preferences", False, f"{path} is a file of votes. Choose another name")
    if config.out is not None and config.out.resolve() in (path.resolve(), *path.resolve().parents):
        return Check(
            "preferences", False, f"{path} lies in {config.out}, which is written as a whole. Choose another place"
        )
    if path.is_dir() or (path.exists() and not config.overwrite):
        return Check("preferences", False, f"{path} exists already. Choose another name, or pass --overwrite")
    return Check("preferences", True, f"{path} is " + ("replaced" if path.exists() else "free"))
