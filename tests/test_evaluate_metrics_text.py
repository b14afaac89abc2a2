"""BLEU, chrF, chrF++ and TER are sacrebleu's, ROUGE is rouge_score's, on made-up and multilingual text."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from bottega.evaluate.metrics.aggregate import AGGREGATIONS
from bottega.evaluate.metrics.bleu import tokens_13a
from bottega.evaluate.metrics.matching import score_text
from bottega.evaluate.metrics.ter import ter_statistics

sacrebleu = pytest.importorskip("sacrebleu")
rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")

SENTENCES = """
The cat sat on the mat, and the dog (a large one) barked: "Woof!"
Il costo è di 1.234,56 € — non più del 3,5% rispetto al 2019-2020.
Straßenbahnfahrer grüßen höflich; Ärzte übrigens auch.
東京は日本の首都です。人口は約1,400万人。
Москва — столица России, её население 12,6 млн.
القاهرة هي عاصمة مصر، وعدد سكانها 10 ملايين.
AT&amp;T &lt;b&gt;said&lt;/b&gt; "no"... it's well-known that x_1=3.14 & y-2.
नई दिल्ली भारत की राजधानी है।
👍🏽 ok!! C'est-à-dire… l'été, 20°C.
state-of-the-art -\nbroken line\nand <skipped>more 1-2 text .
""".strip().split("\n")
WORDS = [word for sentence in SENTENCES for word in sentence.replace("\\n", "\n").split(" ")]
SCORES = {
    "bleu": lambda predictions, streams: sacrebleu.corpus_bleu(predictions, streams).score,
    "chrf": lambda predictions, streams: sacrebleu.corpus_chrf(predictions, streams).score,
    "chrf++": lambda predictions, streams: sacrebleu.corpus_chrf(predictions, streams, word_order=2).score,
    "ter": lambda predictions, streams: sacrebleu.corpus_ter(predictions, streams).score,
}


def disturbed(words: list[str], source: random.Random) -> list[str]:
    """`words` with a run moved, some dropped, some replaced."""
    words = list(words)
    for _ in range(source.randrange(3)):
        start, size = source.randint(0, len(words)), source.randint(1, 8)
        run = words[start : start + size]
        del words[start : start + size]
        place = source.randint(0, len(words))
        words[place:place] = run
    return [word if source.random() < 0.85 else source.choice(WORDS) for word in words if source.random() < 0.9]


def corpus(seed: int, references: int, items: int = 40) -> list[tuple[list[str], str]]:
    source = random.Random(seed)
    pairs = []
    for _ in range(items):
        # Words of few sentences, so that they come again within one.
        vocabulary = source.sample(WORDS, 12)
        words = [source.choice(vocabulary) for _ in range(source.choice([0, 1, 2, 5, 12, 25]))]
        found = [" ".join(disturbed(words, source)) for _ in range(references + 1)]
        pairs.append((found[:-1], found[-1]))
    return pairs


@pytest.mark.parametrize("metric", SCORES)
@pytest.mark.parametrize("references", [1, 3])
def test_corpus_scores_are_sacrebleu_s(metric: str, references: int) -> None:
    score: Callable[[list[str], list[list[str]]], float] = SCORES[metric]
    for seed in range(4):
        pairs = corpus(seed, references)
        for part in (pairs, *([pair] for pair in pairs[:15])):
            streams = [[gold[stream] for gold, _ in part] for stream in range(references)]
            expected = score([found for _, found in part], streams)
            values = [score_text(metric, found, gold, {}) for gold, found in part]
            assert AGGREGATIONS[metric](values) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("metric", SCORES)
def test_texts_without_words(metric: str) -> None:
    for gold, found in [("", ""), ("", "a b"), ("a b", ""), ("  \n", "."), ("a", "b"), ("a b c d", "a b c d")]:
        expected = SCORES[metric]([found], [[gold]])
        assert AGGREGATIONS[metric]([([gold], found)]) == pytest.approx(expected, abs=1e-9), (gold, found)


def test_tokens_are_sacrebleu_s() -> None:
    tokenize = sacrebleu.metrics.BLEU().tokenizer
    for sentence in [*SENTENCES, "a.b 3.b a.3 3.4 ,. 5- -5 `x` {y}~ &amp;quot; \n- -\n"]:
        assert tokens_13a(sentence) == tokenize(sentence.rstrip()).split()


@pytest.mark.slow
def test_moves_are_tercom_s_in_long_and_repetitive_text() -> None:
    source = random.Random(5)
    for _ in range(150):
        vocabulary = source.sample(WORDS, source.choice([3, 40]))
        words = [source.choice(vocabulary) for _ in range(source.choice([30, 60, 110]))]
        gold = " ".join(words if source.random() < 0.9 else words[:1])
        found = " ".join(disturbed(words, source))
        expected = sacrebleu.sentence_ter(found, [gold])
        assert ter_statistics([gold], found) == [expected.num_edits, expected.ref_length]


def test_rouge_is_rouge_score_s() -> None:
    names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    scorer = rouge_scorer.RougeScorer(names)
    source, seen = random.Random(3), set()
    for gold, found in ((" ".join(gold), found) for gold, found in corpus(3, 1, items=150)):
        # Some line ends, for the summary form.
        gold, found = (text.replace(source.choice(WORDS), "\n") for text in (gold, found))
        expected = scorer.score(gold, found)
        ours = score_text("rouge", found, [gold], {})
        for name in names:
            assert ours[name] == pytest.approx(expected[name].fmeasure, abs=1e-12)
            assert score_text(name, found, [gold], {}) == ours[name]
            seen.add(round(ours[name], 2))
    assert len(seen) > 40


def test_rouge_of_several_references_is_the_best() -> None:
    scorer = rouge_scorer.RougeScorer(["rougeL"])
    golds, found = ["the cat is here", "a dog", "cat sat there"], "the cat sat there"
    best = scorer.score_multi(golds, found)["rougeL"].fmeasure
    assert score_text("rougeL", found, golds, {}) == pytest.approx(best)


def test_corpus_scores_have_an_interval_that_plain_resampling_confirms() -> None:
    pairs = corpus(11, 1, items=60)
    for metric in ("bleu", "chrf"):
        aggregation = AGGREGATIONS[metric]
        estimate = aggregation.estimate(aggregation.statistics(pairs), 0)
        generator = np.random.default_rng(1)
        replicates = []
        for _ in range(120):
            drawn = [pairs[index] for index in generator.integers(0, len(pairs), len(pairs))]
            replicates.append(aggregation(drawn))
        assert estimate.low is not None and estimate.high is not None
        assert estimate.low < estimate.value < estimate.high
        assert estimate.error == pytest.approx(np.std(replicates), rel=0.25)
