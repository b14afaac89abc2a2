"""What views look at: the course's model at its stages, loaded once, and tokens as people read them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from bottega.core.errors import UserError
from bottega.course import world
from bottega.course.companion import HELDOUT_SEED, Kind, companion

if TYPE_CHECKING:
    from bottega.generate.generator import Generator
    from bottega.model.decoder import Decoder
    from bottega.tokenizer.tokenizer import Tokenizer

MOST_TOKENS = 96


class Models:
    """The course's models by stage; each is made, loaded and kept when it is first asked for."""

    @cache  # noqa: B019 (one object lives as long as its process)
    def decoder(self, stage: Kind) -> Decoder:
        """The decoder of a stage."""
        from bottega.model.load import load_decoder

        return load_decoder(companion(stage))

    @cache  # noqa: B019
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that all stages have."""
        from bottega.tokenizer.tokenizer import Tokenizer

        return Tokenizer.load(companion("new"))

    @cache  # noqa: B019
    def generator(self, stage: Kind) -> Generator:
        """An engine that writes with a stage."""
        from bottega.generate.generator import Generator

        return Generator.load(companion(stage), threads=1, dtype="float32", max_batch=1)

    def read(self, text: str) -> tuple[list[int], list[str]]:
        """A story's beginning as ids and as words; raises UserError for words that the stories do not have."""
        known = set(world.vocabulary())
        unknown = [word for word in text.split() if word not in known]
        if unknown:
            hint = f"It knows {len(known)} words, for example: {held_out(0)}"
            raise UserError(f"the course's model has no word {unknown[0]!r}", hint=hint)
        tokenizer = self.tokenizer()
        ids = tokenizer.encode_markup(f"<|story|> {text}".strip())
        if len(ids) > MOST_TOKENS:
            raise UserError(f"{len(ids)} words are too many to draw", hint=f"At most {MOST_TOKENS - 1} fit.")
        return ids, [tokenizer.token_text(each) for each in ids]


def held_out(number: int) -> str:
    """A story that no stage has trained on."""
    return next(story for i, story in enumerate(world.stories(HELDOUT_SEED, number + 1)) if i == number).text
