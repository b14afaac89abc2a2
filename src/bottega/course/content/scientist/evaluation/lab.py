"""Four rulers for one model.

Three stages of the course's model are measured: how surprised they are, by word and by byte; how that depends on what
they may look back at; whether they tell a sound story from a broken one; and how much of a score is the form of the
question.
"""

import math
import random
from collections.abc import Iterator

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Bar, Bars, Chart, Series, Table
from bottega.course import world
from bottega.course.companion import HELDOUT_SEED, companion
from bottega.course.lab import Effect, Event, Say, Show, Step, Value

BUDGET = 40
STAGES = ("small", "pretrained", "fine-tuned")


class Params(Config):
    """What can be changed."""

    stories: int = Field(default=120, ge=20, le=500)
    """Stories, and questions, to measure on."""


def run(params: Params) -> Iterator[Event]:
    """Measure with every ruler."""
    from bottega.evaluate.statistics import mcnemar, wilson
    from bottega.model.load import load_decoder
    from bottega.tokenizer.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(companion("new"))
    models = {}
    for stage in STAGES:
        models[stage] = load_decoder(companion("small") if stage == "small" else companion("pretrained") if stage == "pretrained" else companion("fine-tuned"))
    stories = list(world.stories(HELDOUT_SEED + 5, params.stories))
    rows, nats = [], {}
    for stage, model in models.items():
        found = [log_probs(model, tokenizer, f"<|story|> {story.text}") for story in stories]
        words, size = sum(map(len, found)), sum(len(story.text.encode()) for story in stories)
        total = -sum(map(sum, found))
        nats[stage] = total / words
        means = sum(math.exp(-sum(each) / len(each)) for each in found) / len(found)
        rows.append((stage, f"{nats[stage]:.3f}", f"{math.exp(nats[stage]):.3f}", f"{means:.3f}", f"{total / math.log(2) / size:.4f}"))
    columns = ["model", "nats a word", "perplexity", "mean of the stories' perplexities", "bits a byte"]
    yield Show("surprise", Table("Surprise", columns, rows))
    yield Step(1, 4, "surprise")

    windows, points = (2, 4, 8, 16, 32, 64), []
    for window in windows:
        total = count = 0.0
        for story in stories[:40]:
            ids = tokenizer.encode_markup(f"<|story|> {story.text}")
            for at in range(1, len(ids), 4):
                total -= next_word(models["pretrained"], ids[max(0, at - window) : at], ids[at])
                count += 1
        points.append((window, math.exp(total / count)))
    yield Show("window", Chart("Perplexity by what may be looked back at", "words of context", "perplexity", [Series("pretrained", points)], log_x=True))
    yield Step(2, 4, "context")

    verdicts: dict[str, list[bool]] = {}
    for stage in ("small", "pretrained"):
        same = random.Random(1)
        broken = [world.with_wrong_name(story, same) for story in stories]
        verdicts[stage] = [sum(log_probs(models[stage], tokenizer, f"<|story|> {s.text}")) > sum(log_probs(models[stage], tokenizer, f"<|story|> {b}"))
                           for s, b in zip(stories, broken, strict=True)]  # fmt: skip
    rows = []
    for stage, right in verdicts.items():
        each = wilson(sum(right), len(right))
        rows.append((stage, f"{each.value:.1%}", f"{each.low:.1%} to {each.high:.1%}"))
    yield Show("sound", Table("Sound story or one with a wrong name: which is likelier?", ["model", "right", "95 % interval"], rows))
    test = mcnemar(verdicts["small"], verdicts["pretrained"])
    yield Say(f"On the same stories the two differ with p = {test.p_value:.1g}.")
    bars = []
    for name, model in (("a new model", load_decoder(companion("new"))), ("pretrained", models["pretrained"])):
        sums, means = endings(model, tokenizer, stories)
        bars += [Bar("sum of ln p", sums, group=name), Bar("mean of ln p a word", means, group=name)]
    yield Show("norms", Bars("The true next sentence, or a shorter one from elsewhere", "share right", bars, percent=True))
    yield Step(3, 4, "choices")

    forms = {
        "as trained": "<|story|> <|user|> {story} {question} <|assistant|>", "without the headers": "<|story|> {story} {question}",
        "question first": "<|story|> <|user|> {question} {story} <|assistant|>",
    }  # fmt: skip
    scores = {}
    for name, form in forms.items():
        same, right = random.Random(3), 0
        for story in stories:
            question, answer = same.choice(world.questions(story))
            ids = tokenizer.encode_markup(form.format(story=story.text, question=question))
            right += best_word(models["fine-tuned"], ids) == tokenizer.id_of(answer)
        scores[name] = right / len(stories)
    yield Show("forms", Bars("One model, one task, three ways to ask", "share answered", [Bar(name, value) for name, value in scores.items()], percent=True))
    yield Step(4, 4, "forms")
    yield Value("nats_pretrained", nats["pretrained"], "nats a word", 0.1)
    yield Value("perplexity_pretrained", math.exp(nats["pretrained"]), "", 0.05)
    yield Value("perplexity_tuned", math.exp(nats["fine-tuned"]), "", 2.0)
    yield Value("context_2", points[0][1], "perplexity", 0.3)
    yield Value("context_64", points[-1][1], "perplexity", 0.1)
    yield Value("sound_small", sum(verdicts["small"]) / len(stories), "of the stories", 0.15)
    yield Value("sound_pretrained", sum(verdicts["pretrained"]) / len(stories), "of the stories", 0.1)
    yield Value("by_sum", bars[0].value, "of the endings", 1.0)
    yield Value("by_mean", bars[1].value, "of the endings", 0.5)
    yield Value("form_trained", scores["as trained"], "of the questions", 0.2)
    yield Value("form_bare", scores["without the headers"], "of the questions", 2.0)
    yield Value("form_first", scores["question first"], "of the questions", 2.0)
    yield Effect("more context means less surprise", points[0][1] > points[-1][1])
    if params.stories >= 60:
        yield Effect("the model that was trained for longer tells sound stories apart better", sum(verdicts["pretrained"]) > sum(verdicts["small"]))
        yield Effect("for a model that knows nothing, sums of ln p always favour the shorter option", bars[0].value < 0.1)
        yield Effect("and means do not", 0.15 < bars[1].value < 0.85)
        yield Effect("the same model asked in another form answers less", scores["as trained"] > min(scores.values()) + 0.1)


def log_probs(decoder, tokenizer, text: str) -> list[float]:
    """ln p of each word but the first."""
    import torch

    ids = torch.tensor(tokenizer.encode_markup(text))
    with torch.no_grad():
        found = decoder(ids[None])[0, :-1].log_softmax(-1)
    return found.gather(1, ids[1:, None])[:, 0].tolist()


def next_word(decoder, context, word: int) -> float:
    """ln p of a word behind a context."""
    import torch

    with torch.no_grad():
        return float(decoder(torch.tensor([context]))[0, -1].log_softmax(-1)[word])


def best_word(decoder, ids) -> int:
    """The likeliest next word."""
    import torch

    with torch.no_grad():
        return int(decoder(torch.tensor([ids]))[0, -1].argmax())


def endings(decoder, tokenizer, stories) -> tuple[float, float]:
    """How often the true next sentence wins against a shorter one, by the sum and by the mean of ln p."""
    sums = means = count = 0
    for story in stories:
        sentences = [f"{each.strip()} ." for each in story.text.split(" . ") if each.strip(" .")]
        places = [at for at in range(1, len(sentences) - 1) if len(sentences[at].split()) >= 8]
        for at in places[:1]:
            before = f"<|story|> {' '.join(sentences[:at])}"
            shown = len(tokenizer.encode_markup(before)) - 1
            scores = []
            for option in (sentences[at], "the end ."):
                part = log_probs(decoder, tokenizer, f"{before} {option}")[shown:]
                scores.append((sum(part), sum(part) / len(part)))
            sums += scores[0][0] > scores[1][0]
            means += scores[0][1] > scores[1][1]
            count += 1
    return sums / count, means / count
