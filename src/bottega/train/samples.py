"""What the model says to a few prompts, before, while and after it is trained, side by side in `samples.jsonl`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bottega.core.append import append_row
from bottega.core.progress import Reporter
from bottega.data.batches import Batches
from bottega.data.examples import Examples
from bottega.generate.settings import Sampling
from bottega.model.decoder import Decoder
from bottega.model.paged import BLOCK
from bottega.tokenizer.chat import encode_chat
from bottega.tokenizer.tokenizer import Tokenizer
from bottega.train.rollout import Rollouts
from bottega.train.samples_view import SAMPLES_FILE, SHOWN, read_samples

TOKENS = 64
OF_THE_DATA = 3


@dataclass(frozen=True)
class Prompt:
    """A prompt and how it is shown."""

    text: str
    ids: list[int]


def prompts_of(
    given: Sequence[str], source: Batches | Examples, tokenizer: Tokenizer, *, chat: bool
) -> list[Prompt]:
    """The user's prompts, or the first ones of the examples that are trained on.

    With `chat` each is what a user says, if there is a chat template; else it is plain text, as the data's are then.
    """
    if given:
        return [Prompt(text, _ids(text, tokenizer, chat=chat and bool(tokenizer.chat_template))) for text in given]
    if isinstance(source, Batches):
        return []
    found = []
    for i in range(min(OF_THE_DATA, source.count)):
        document = source.documents(i)[0]
        length = int(document.mask.argmax()) if document.mask.any() else len(document.tokens)
        ids = document.tokens[:length].tolist()
        found.append(Prompt(tokenizer.decode(ids), ids))
    return [prompt for prompt in found if prompt.ids]


def _ids(text: str, tokenizer: Tokenizer, *, chat: bool) -> list[int]:
    if not chat:
        return [*tokenizer.document_prefix(), *tokenizer.encode(text)]
    return encode_chat(tokenizer, [{"role": "user", "content": text}], add_generation_prompt=True).ids


class Samples:
    """Draws samples of the decoder in training and writes them down; they do not enter what is computed."""

    def __init__(
        self, prompts: Sequence[Prompt], model: Decoder, tokenizer: Tokenizer, folder: Path, reporter: Reporter
    ) -> None:
        self.model, self.tokenizer, self.path, self.reporter = model, tokenizer, folder / SAMPLES_FILE, reporter
        self.prompts = [prompt for prompt in prompts if len(prompt.ids) < model.config.context_length]

    def draw(self, step: int) -> None:
        """The likeliest answers at this step, unless an interrupted run wrote them down already."""
        if not self.prompts or any(row["step"] == step for row in read_samples(self.path)):
            return
        room = sum(len(prompt.ids) + TOKENS + BLOCK for prompt in self.prompts)
        rollouts = Rollouts(self.model, self.tokenizer, max_batch=len(self.prompts), cache_tokens=room)
        greedy = Sampling(max_new_tokens=TOKENS, temperature=0.0)
        found = rollouts.sample([prompt.ids for prompt in self.prompts], 1, greedy, seed=0)
        rollouts.close()
        for prompt, each in zip(self.prompts, found, strict=True):
            self.reporter.say(f"  step {step} · {prompt.text[-SHOWN:]!r} → {each.text!r}")
            append_row(self.path, {"step": step, "prompt": prompt.text, "text": each.text, "finished": each.finished})
