"""Pre-training and supervised fine-tuning: the mean of -log p(token) over the trained tokens of the step."""

from __future__ import annotations

from torch import Tensor

from bottega.data.batches import Batches, Row
from bottega.data.examples import Examples
from bottega.train.batch import MicroBatch, micro_batches
from bottega.train.loss import linear_cross_entropy
from bottega.train.settings import Settings
from bottega.train.stage import Figures, FixedData, Forward, Part


class TokenStage(FixedData):
    """Packed rows, or where the user counts in examples, so many conversations a step."""

    def __init__(self, source: Batches | Examples, settings: Settings, forward: Forward) -> None:
        self.source, self.settings, self.forward = source, settings, forward

    def parts(self, step: int) -> list[Part]:
        """Rows of the step."""
        ranks = self.forward.machine.ranks
        if isinstance(self.source, Examples):
            indices = self.source.indices(step, self.settings.examples_per_step)
            return self._parts([row_of(self.source, i) for i in ranks.share(indices)])
        count = self.settings.rows_per_step
        return self._parts(ranks.share(self.source.rows(step * count, count)))

    def heldout(self, tokens: int) -> list[Part]:
        """About so many tokens to measure on."""
        if isinstance(self.source, Batches):
            wanted = max(1, tokens // self.settings.row_length)
            return self._parts(self.source.rows(0, min(self.source.epoch_rows, wanted)))
        return self._parts([row_of(self.source, i) for i in first_examples(self.source, tokens)])

    def loss(self, part: Part) -> tuple[Tensor, Figures]:
        """Sum of -log p over the part's trained tokens, in nats."""
        return token_loss(self.forward, part.batch), {}

    def _parts(self, rows: list[Row]) -> list[Part]:
        batches = micro_batches(rows, self.settings.config.micro_batch_tokens)
        return [Part(batch, len(batch.targets)) for batch in batches]


def token_loss(forward: Forward, batch: MicroBatch) -> Tensor:
    """Sum of -log p(target) over a batch."""
    cap = forward.model.config.switches.logit_cap
    return linear_cross_entropy(forward.states(batch), forward.model.lm_head.weight, batch.targets, cap)


def row_of(examples: Examples, i: int) -> Row:
    """An example's documents as one row, so that they stay in one part."""
    return joined([(document.tokens, document.mask) for document in examples.documents(i)])


def joined(documents: list[tuple]) -> Row:
    """(tokens, mask) of each document, as one row."""
    import numpy as np

    tokens, masks = zip(*documents, strict=True)
    return Row(np.concatenate(tokens), np.concatenate(masks), [len(part) for part in tokens])


def first_examples(examples: Examples, tokens: int) -> list[int]:
    """Examples in their order, until they hold about so many tokens; one at least."""
    found: list[int] = []
    for i in range(examples.count):
        found.append(i)
        tokens -= sum(examples.lengths(i))
        if tokens <= 0:
            break
    return found
