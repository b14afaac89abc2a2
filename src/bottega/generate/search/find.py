"""Search: from a prompt and settings to answers, by whichever method the settings ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial

from bottega.generate.search.beam import Tree, beam_search
from bottega.generate.search.contrastive import HiddenRows, contrastive_search
from bottega.generate.search.dola import DolaRows
from bottega.generate.search.guidance import GuidedRows
from bottega.generate.search.hypothesis import Hypothesis, Reader
from bottega.generate.search.rows import Rows
from bottega.generate.search.settings import Search
from bottega.generate.search.vote import Vote, sample, vote
from bottega.generate.settings import Sampling
from bottega.model.decoder import Decoder
from bottega.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        sequences: best first. Of self-consistency, those that gave the winning answer come first.
        vote: self-consistency's; its `answers` are in the order of the sequences.
        tree: beam search's trace, if it was asked for.
    """

    sequences: list[Hypothesis]
    vote: Vote | None = None
    tree: Tree | None = None


def find(
    decoder: Decoder,
    tokenizer: Tokenizer,
    prompt: Sequence[int],
    sampling: Sampling,
    search: Search,
    *,
    negative: Sequence[int] | None = None,
    on_step: Callable[[], object] = lambda: None,
) -> Found:
    """Answer `prompt` as `search` says.

    Args:
        decoder: the model; its weights and its own cache are used, not an engine's.
        tokenizer: knows the stop tokens.
        prompt: token ids.
        sampling: what changes the scores, draws (where something is drawn) and stops; `trace` keeps the tree of beams.
        search: the settings.
        negative: the prompt that classifier-free guidance leads away from (default: the prompt's last token).
        on_step: called before each pass of the model.

    Raises UserError for settings that contradict each other, or a prompt that does not fit the context.
    """
    if negative is not None:
        search.require_guided()
    given = {field.name: getattr(sampling, field.name) for field in fields(sampling)}
    search.require_obeyed(given, {field.name: field.default for field in fields(Sampling)})
    sampling = sampling.for_model(decoder.config.vocab_size, tokenizer.stop_ids)
    reader = Reader(sampling, tokenizer, prompt[-1] if prompt else None)
    make = _kind_of_rows(search, negative)
    number = max(search.num_beams, search.best_of, search.self_consistency)
    width = sampling.top_k if search.method == "contrastive" else number
    rows = make(decoder, prompt, width=width, max_new_tokens=sampling.max_new_tokens, on_step=on_step)
    tree: Tree | None = [] if sampling.trace else None
    if isinstance(rows, HiddenRows):
        return Found([contrastive_search(rows, sampling, search.penalty_alpha, reader)])
    if search.method == "beam":
        return Found(beam_search(rows, sampling, search, reader, tree), tree=tree)
    samples = sorted(sample(rows, sampling, number, reader), key=lambda answer: -answer.score)
    if search.method == "self_consistency":
        return _agreed(samples, search.answer_pattern)
    return Found(samples[: search.num_return_sequences])


def _kind_of_rows(search: Search, negative: Sequence[int] | None) -> Callable[..., Rows]:
    """What makes the batch whose scores the settings ask for."""
    if search.method == "contrastive":
        return HiddenRows
    if search.dola_layers is not None:
        return partial(DolaRows, layers=search.dola_layers)
    if search.guidance_scale != 1:
        return partial(GuidedRows, scale=search.guidance_scale, negative=negative)
    return Rows


def _agreed(samples: list[Hypothesis], pattern: str | None) -> Found:
    """Vote, and put the winners first."""
    result = vote([each.text for each in samples], [each.score for each in samples], pattern)
    order = sorted(range(len(samples)), key=lambda index: result.answers[index] != result.winner)
    ranked = Vote(result.winner, result.counts, [result.answers[index] for index in order])
    return Found([samples[index] for index in order], vote=ranked)
