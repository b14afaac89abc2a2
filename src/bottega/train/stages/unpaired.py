"""KTO: answers that somebody judged good or bad, one by one. The mean is over the examples of a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from bottega.core.errors import UserError
from bottega.data.batches import Row
from bottega.data.examples import Examples
from bottega.train.batch import collate, groups
from bottega.train.losses.unpaired import balanced_weights, divergence_estimate, unpaired_loss
from bottega.train.settings import Settings
from bottega.train.stage import Figures, FixedData, Forward, Part, told
from bottega.train.stages.tokens import first_examples, joined, row_of

SHOWN = {"reward_accuracy": "accuracy"}
DRAWS = 64


class UnpairedStage(FixedData):
    """`reference`: (examples, 2), of each answer and of its mismatch, or (examples, 1); NaN for what is not seen."""

    def __init__(self, examples: Examples, settings: Settings, forward: Forward, reference: np.ndarray) -> None:
        self.examples, self.settings, self.forward, self.reference = examples, settings, forward, reference
        preference = settings.config.preference
        self.weights = preference.desirable_weight, preference.undesirable_weight
        if preference.balance:
            good = sum(bool(examples.row(i)["label"]) for i in range(examples.count))
            balance = balanced_weights(good, examples.count - good)
            self.weights = self.weights[0] * balance[0], self.weights[1] * balance[1]

    def parts(self, step: int) -> list[Part]:
        """The examples of the step."""
        indices = self.examples.indices(step, self.settings.examples_per_step)
        return self._parts(self.forward.machine.ranks.share(indices))

    def heldout(self, tokens: int) -> list[Part]:
        """Examples of about so many tokens to measure on."""
        return self._parts(first_examples(self.examples, tokens))

    def loss(self, part: Part) -> tuple[Tensor, Figures]:
        """Sum of the examples' losses."""
        losses, figures = unpaired_loss(
            self.forward.answer_log_probs(part.batch),
            part.extra["reference"],
            part.extra["desirable"],
            part.extra["divergence"],
            loss=self.settings.config.preference_loss,
            beta=self.settings.config.beta,
            desirable_weight=self.weights[0],
            undesirable_weight=self.weights[1],
        )
        return losses.sum(), told({SHOWN.get(name, name): values for name, values in figures.items()})

    def _parts(self, indices: Sequence[int]) -> list[Part]:
        divergence = self._divergence(indices)
        rows = [row_of(self.examples, i) for i in indices]
        found = []
        for group in groups(rows, self.settings.config.micro_batch_tokens):
            chosen = [indices[place] for place in group]
            extra = {
                "reference": torch.from_numpy(self.reference[chosen, 0]),
                "desirable": torch.tensor([bool(self.examples.row(i)["label"]) for i in chosen]),
                "divergence": divergence,
            }
            found.append(Part(collate([rows[place] for place in group]), len(chosen), extra))
        return found

    @torch.no_grad()
    def _divergence(self, indices: Sequence[int]) -> Tensor:
        """The point of reference of the whole step, from answers that belong to other prompts."""
        if self.settings.config.preference_loss != "kto":
            return torch.zeros(())
        rows = [mismatched(self.examples, i) for i in indices]
        ranks, values = self.forward.machine.ranks, []
        with ranks.gathered(self.forward.model):
            for group in groups(rows, self.settings.config.micro_batch_tokens):
                batch = collate([rows[place] for place in group]).to(self.forward.machine.device)
                values += self.forward.answer_log_probs(batch).tolist()
        known = self.reference[list(indices), 1].tolist()
        ours, theirs = (torch.tensor(list(chain(*ranks.gather(found)))) for found in (values, known))
        return divergence_estimate(ours, theirs)


def mismatched(examples: Examples, i: int) -> Row:
    """The prompt of example `i` with an answer to another prompt.

    An answer under its own prompt is what training moves most, and would make the distance look large. Raises
    UserError if all prompts are the same.
    """
    (own,) = examples.documents(i)
    prompt = int(own.mask.argmax())
    for place in _others(examples, i):
        (other,) = examples.documents(place)
        start = int(other.mask.argmax())
        tokens = np.concatenate([own.tokens[:prompt], other.tokens[start:]])[: examples.row_length]
        mask = np.concatenate([own.mask[:prompt], other.mask[start:]])[: examples.row_length]
        # The first token cannot be predicted, so a mask on it alone counts nothing.
        if mask[1:].any() and not np.array_equal(own.tokens[:prompt], other.tokens[:start]):
            return joined([(tokens, mask)])
    raise UserError(
        f"kto measures the distance to the start on answers to other prompts, and {examples.folder} has no other",
        hint="Give examples of several prompts, or preference: {loss: apo_zero_unpaired}, which needs no distance.",
    )


def _others(examples: Examples, i: int) -> Iterator[int]:
    """Where to look: at the neighbour; as answers to a prompt often stand together, anywhere; at last, everywhere."""
    yield (i + 1) % examples.count
    yield from np.random.default_rng([examples.seed, 3, i]).integers(examples.count, size=DRAWS).tolist()
    yield from range(examples.count)


def with_mismatched(examples: Examples, i: int) -> Row:
    """Example `i` and its mismatch, for the reference model."""
    (own,) = examples.documents(i)
    other = mismatched(examples, i)
    return joined([(own.tokens, own.mask), (other.tokens, other.mask)])
