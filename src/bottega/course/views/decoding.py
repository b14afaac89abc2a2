"""The decoding explorer.

What the model believes comes next, what a cut-off leaves of it, and what is drawn from the rest; below it the tree that
beam search grows from the same place. Temperature bends the probabilities, top-k, top-p and min-p cut their tail off.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Bar, Bars, Block, Branch, Table, Text, Tree
from bottega.course.views.models import Models

SHOWN = 12


class Params(Config):
    """What can be changed."""

    text: str = Field(default="once upon a time there was a", max_length=600)
    """The beginning of a story, in words of the stories."""
    stage: Literal["new", "small", "pretrained"] = "pretrained"
    """How far the model was trained: not at all, 300 steps, 1,500 steps."""
    temperature: float = Field(default=1.0, ge=0.0, le=3.0)
    """Divides the logits; 0 takes the likeliest word."""
    top_k: int = Field(default=0, ge=0, le=80)
    """Words that are kept at most; 0 keeps all."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """Share of the probability that is kept."""
    min_p: float = Field(default=0.0, ge=0.0, le=1.0)
    """What a word must have of the likeliest one's probability."""
    seed: int = Field(default=0, ge=0)
    """Of the draws."""
    beams: int = Field(default=3, ge=1, le=5)
    """Beams of the search."""
    depth: int = Field(default=5, ge=1, le=10)
    """Words that the search looks ahead."""


def show(params: Params, models: Models) -> Iterator[Block]:
    """One step, a story drawn to its end, and the tree."""
    from bottega.course.companion import STORY
    from bottega.generate.settings import Sampling

    ids, _ = models.read(params.text)
    generator, tokenizer = models.generator(params.stage), models.tokenizer()
    cut = {"temperature": params.temperature, "top_k": params.top_k, "top_p": params.top_p, "min_p": params.min_p}
    sampling = Sampling(**STORY, **cut, seed=params.seed, trace=True)
    pieces = list(generator.follow(generator.submit(ids, sampling)))
    first = pieces[0].trace
    assert first is not None  # it was asked for
    bars = []
    for each in first.candidates[:SHOWN]:
        drawn = " ← drawn" if each.token == first.token else ""
        name = f"{tokenizer.token_text(each.token)}{f' (cut by {each.cut_by})' if each.cut_by else ''}{drawn}"
        bars.append(Bar(name, each.probability, baseline=bool(each.cut_by), reference=each.raw_probability))
    title = f"The next word: {first.entropy:.2f} nats of doubt"
    yield Bars(title, "probability it is drawn with", bars, reference_label="the model's own probability")
    rows = []
    for piece in pieces[:20]:
        trace = piece.trace
        assert trace is not None
        own = next((each.raw_probability for each in trace.candidates if each.token == trace.token), 0.0)
        left = sum(each.probability > 0 for each in trace.candidates)
        rows.append((tokenizer.token_text(trace.token), f"{own:.3f}", f"{trace.entropy:.2f}", left))
    columns = ["drawn", "the model's probability", "nats of doubt", "left of the 50 likeliest"]
    yield Table("The first steps", columns, rows)
    yield Text(f"{params.text} {''.join(piece.text for piece in pieces).strip()}")
    yield _tree(params, models, ids)


def _tree(params: Params, models: Models, ids: list[int]) -> Tree:
    """What beam search looked at. The first column is the prompt's last word."""
    from bottega.generate.search.find import find
    from bottega.generate.search.settings import Search
    from bottega.generate.settings import Sampling

    tokenizer = models.tokenizer()
    sampling = Sampling(max_new_tokens=params.depth, temperature=1.0, trace=True)
    search = Search(num_beams=params.beams, num_return_sequences=params.beams, length_penalty=0.0)
    found = find(models.decoder(params.stage), tokenizer, ids, sampling, search)
    places, branches = {0: 0}, [Branch(tokenizer.token_text(ids[-1]), -1, 0.0)]
    for node in (node for step in found.tree or [] for node in step["beams"]):
        places[node["id"]] = len(branches)
        text = tokenizer.token_text(node["token"])
        branches.append(Branch(text, places[node["parent"]], round(node["total"], 2), node["state"] != "pruned"))
    note = "A number is the log-probability of the way so far. Struck out: a better way took its place."
    return Tree(f"Beam search, {params.beams} wide", "ln p of the way", branches, note)
