"""Look inside: attention and the logit lens.

The trained model reads a story. Where does each word look, and when does the model make up its mind? Some heads look at
the very word that comes next, where it stood before: the model copies, and that is how it knows the names.
"""

from collections.abc import Iterator

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Bar, Bars, Chart, Series, Table
from bottega.course import world
from bottega.course.companion import HELDOUT_SEED, companion
from bottega.course.lab import Effect, Event, Say, Show, Value

BUDGET = 45


class Params(Config):
    """What can be changed."""

    story: int = Field(default=3, ge=0, le=99)
    """Which of a hundred held-out stories."""


def run(params: Params) -> Iterator[Event]:
    """Look at one story, and measure on many."""
    import torch

    from bottega.model.load import load_decoder
    from bottega.model.microscope import logit_lens, look
    from bottega.tokenizer.tokenizer import Tokenizer

    yield Say("The pre-trained model of the course is made first, if it is not there yet (25 s of computing, once).")
    folder = companion("pretrained")
    decoder, tokenizer = load_decoder(folder), Tokenizer.load(folder)
    stories = list(world.stories(HELDOUT_SEED, 100))
    story = stories[params.story]
    ids = torch.tensor(tokenizer.encode_markup(f"<|story|> {story.text}"))
    words = [tokenizer.token_text(int(each)) for each in ids]
    seen = look(decoder, ids)

    place = max(i for i, word in enumerate(words) if word == story.choices["thing"])
    rows = []
    for layer, heads in enumerate(seen.attention):
        for head, weights in enumerate(heads[:, place - 1]):
            best = int(weights.argmax())
            rows.append((f"layer {layer + 1}, head {head + 1}", words[best], best, f"{float(weights[best]):.2f}"))
    yield Say(f"Before it says “{words[place]}” for the last time, the model stands at “{words[place - 1]}”.")
    yield Show("looks", Table(f"Where “{words[place - 1]}” looks most", ["head", "at", "place", "weight"], rows))

    heads = [f"layer {layer + 1}, head {head + 1}" for layer in range(2) for head in range(4)]
    twice = [each for each in stories if each.branches[3] == 1]  # something is lost: its place is named twice
    scores = {name: _copying(decoder, tokenizer, twice[:20], name) for name in ("name", "colour", "thing", "place")}
    table = [(head, *(f"{scores[name][i]:.2f}" for name in scores)) for i, head in enumerate(heads)]
    columns = ["head", "names", "colours", "things", "places"]
    yield Show("copying", Table("Weight on the next word, where it stood before", columns, table))
    best = [Bar(heads[int(each.argmax())], float(each.max()), group=name) for name, each in scores.items()]
    yield Show("copiers", Bars("The head that copies best", "mean weight", best))

    losses = torch.zeros(len(seen.residual))
    for each in stories[:50]:
        tokens = torch.tensor(tokenizer.encode_markup(f"<|story|> {each.text}"))
        lens = logit_lens(decoder, look(decoder, tokens).residual)[:, :-1].log_softmax(-1)
        picked = lens.gather(2, tokens[1:].expand(len(lens), -1).unsqueeze(2))
        losses -= picked.mean((1, 2)) / 50
    points = [(layer, float(loss)) for layer, loss in enumerate(losses)]
    lens_chart = Chart("The logit lens", "layers passed", "nats per token", [Series("loss, read there", points)])
    yield Show("lens", lens_chart)
    lens = logit_lens(decoder, seen.residual)[:, place - 1].softmax(-1)
    guesses = [(layer, tokenizer.token_text(int(p.argmax())), f"{float(p.max()):.2f}") for layer, p in enumerate(lens)]
    columns = ["layers passed", "word", "probability"]
    yield Show("guesses", Table(f"What each layer would say after “{words[place - 1]}”", columns, guesses))

    upper = torch.ones_like(seen.attention[0, 0]).triu(1).bool()
    yield Value("heads", len(heads), "heads", 0)
    for name, each in scores.items():
        yield Value(f"copy_{name}", float(each.max()), "mean weight", 0.4)
    yield Value("lens_start", points[0][1], "nats per token", 0.2)
    yield Value("lens_middle", points[1][1], "nats per token", 0.3)
    yield Value("lens_end", points[-1][1], "nats per token", 0.1)
    yield Effect("no word looks at a later one", float(seen.attention[:, :, upper].abs().max()) == 0)
    copies = all(float(scores[name].max()) > 0.4 for name in ("name", "colour", "thing"))
    yield Effect("names, colours and things each have a head that looks at the next word where it stood", copies)
    learned = min(float(scores[name].max()) for name in ("name", "colour", "thing"))
    lacks = float(scores["place"].max()) < learned
    yield Effect("places have none: what the model has not learned is visible too", lacks)
    yield Effect("each layer knows more than the one before", bool((losses.diff() < 0).all()))


def _copying(decoder, tokenizer, stories, name: str):
    """(heads,) mean weight on the earlier place of the next word, where that is a word of the class `name`."""
    import torch

    from bottega.model.microscope import copy_scores, look

    among = torch.zeros(tokenizer.vocab_size, dtype=torch.bool)
    among[[tokenizer.id_of(word) for word in world.CHOICES[name]]] = True
    texts = [torch.tensor(tokenizer.encode_markup(f"<|story|> {story.text}")) for story in stories]
    return torch.stack([copy_scores(look(decoder, ids).attention, ids, among) for ids in texts]).mean(0).flatten()
