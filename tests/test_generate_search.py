"""Searches against brute force, transformers, and slow implementations written from the papers."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bottega.core.errors import UserError
from bottega.generate.search.beam import Tree, beam_search
from bottega.generate.search.contrastive import HiddenRows, contrastive_search
from bottega.generate.search.dola import DolaRows
from bottega.generate.search.guidance import GuidedRows
from bottega.generate.search.hypothesis import Ending, Hypothesis
from bottega.generate.search.rows import Rows
from bottega.generate.search.settings import Search, premature_layers
from bottega.generate.search.vote import answer_in, sample, vote
from bottega.generate.settings import Sampling
from bottega.model.cache import KVCache
from bottega.model.decoder import Decoder
from bottega.model.load import load_decoder
from conftest import Workshop

transformers = pytest.importorskip("transformers")
PROMPT = [3, 1, 4, 1]


def oracle_model(vocabulary: int, spread: float, seed: int = 0, *, tied: bool = False) -> Any:
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, initializer_range=spread, tie_word_embeddings=tied,
        bos_token_id=0, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def ours(oracle: Any, folder: Path) -> Decoder:
    from bottega.checkpoint.folder import ModelFolder

    oracle.save_pretrained(folder)
    return load_decoder(ModelFolder.open(folder)).eval()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    """Five tokens."""
    return ours(oracle_model(5, 0.3), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Decoder]:
    """Sixty tokens, by transformers and by us."""
    oracle = oracle_model(60, 0.25, seed=1)
    return oracle, ours(oracle, tmp_path_factory.mktemp("models") / "pair")


def beams(
    decoder: Decoder, search: Search, *, stop: Collection[int] = (), tree: Tree | None = None, **sampling: Any
) -> list[Hypothesis]:
    settings = Sampling(**{"max_new_tokens": 5, **sampling})
    rows = Rows(decoder, PROMPT, width=search.num_beams, max_new_tokens=settings.max_new_tokens)
    return beam_search(rows, settings, search, Ending(frozenset(stop)), tree)


@torch.inference_mode()
def every_answer(
    decoder: Decoder, longest: int, stop: set[int], length_penalty: float
) -> list[tuple[list[int], float]]:
    """All answers that end with a stop token or with the length, and their scores, best first."""
    everything = torch.cartesian_prod(*[torch.arange(decoder.config.vocab_size)] * longest)
    prompts = torch.tensor(PROMPT).expand(len(everything), -1)
    logits = decoder(torch.cat((prompts, everything), dim=1))[:, len(PROMPT) - 1 : -1]
    logprobs = logits.log_softmax(-1).gather(2, everything.unsqueeze(2)).squeeze(2).cumsum(1)
    found = []
    for tokens, totals in zip(everything.tolist(), logprobs.tolist(), strict=True):
        end = next((place + 1 for place, token in enumerate(tokens) if token in stop), longest)
        if not any(tokens[end:]):  # what stands behind the end is one of many: it is counted once
            found.append((tokens[:end], totals[end - 1] / end**length_penalty))
    return sorted(found, key=lambda answer: -answer[1])


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0, -1.0])
@pytest.mark.parametrize("stop", [set(), {2}, {1, 4}])
def test_a_beam_as_wide_as_the_tree_finds_what_brute_force_finds(
    tiny: Decoder, stop: set[int], length_penalty: float
) -> None:
    expected = every_answer(tiny, 4, stop, length_penalty)
    wide = Search(num_beams=125, num_return_sequences=9, early_stopping="never", length_penalty=length_penalty)
    found = beams(tiny, wide, stop=stop, max_new_tokens=4)
    assert [answer.tokens for answer in found] == [tokens for tokens, _ in expected[:9]]
    assert [answer.score for answer in found] == pytest.approx([score for _, score in expected[:9]], abs=1e-5)
    for answer in found:
        assert answer.score == pytest.approx(answer.logprob / len(answer.tokens) ** length_penalty)
        assert answer.finish_reason == ("stop" if answer.tokens[-1] in stop else "length")


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize(("num_beams", "returned"), [(2, 1), (4, 4), (7, 3)])
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 0.6, 3.0, -0.5])
@pytest.mark.parametrize("stop", [[2], [2, 5, 7, 11, 13, 17], list(range(0, 60, 3))])
def test_beams_equal_those_of_transformers(
    pair: tuple[Any, Decoder],
    stop: list[int],
    length_penalty: float,
    num_beams: int,
    returned: int,
    early_stopping: Any,
) -> None:
    oracle, decoder = pair
    prompt = torch.tensor([PROMPT])
    expected = oracle.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False, num_beams=num_beams,
        num_return_sequences=returned, length_penalty=length_penalty, early_stopping=early_stopping, eos_token_id=stop,
        pad_token_id=59, return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    search = Search(num_beams, returned, length_penalty, early_stopping)
    found = beams(decoder, search, stop=set(stop), max_new_tokens=12)
    for answer, tokens in zip(found, expected.sequences[:, len(PROMPT) :].tolist(), strict=True):
        assert tokens[: len(answer.tokens)] == answer.tokens
        assert set(tokens[len(answer.tokens) :]) <= {59}
    assert [answer.score for answer in found] == pytest.approx(expected.sequences_scores.tolist(), abs=1e-4)


def test_a_single_beam_is_greedy_decoding_and_processors_change_what_is_ranked(tiny: Decoder) -> None:
    for stop in (set(), {2}):
        tokens = list(PROMPT)
        with torch.inference_mode():
            while len(tokens) < len(PROMPT) + 8 and not (set(tokens[len(PROMPT) :]) & stop):
                tokens.append(int(tiny(torch.tensor([tokens]))[0, -1].argmax()))
        assert beams(tiny, Search(), stop=stop, max_new_tokens=8)[0].tokens == tokens[len(PROMPT) :]


def test_groups_search_one_after_the_other_and_avoid_what_earlier_ones_chose(tiny: Decoder) -> None:
    """Against Vijayakumar et al.'s algorithm 1 with recomputation."""
    for width, stop in ((1, set()), (2, set()), (2, {2}), (3, {4})):
        search = Search(3 * width, 3 * width, num_beam_groups=3, diversity_penalty=0.7, early_stopping="never")
        found = beams(tiny, search, stop=stop)
        expected = sorted(slow_diverse(tiny, 3, width, 0.7, stop, 5), key=lambda answer: -answer[1])[: 3 * width]
        assert [answer.tokens for answer in found] == [tokens for tokens, _ in expected]
        assert [answer.score for answer in found] == pytest.approx([score for _, score in expected], abs=1e-5)


@torch.inference_mode()
def slow_diverse(
    decoder: Decoder, groups: int, width: int, penalty: float, stop: set[int], longest: int
) -> list[tuple[list[int], float]]:
    """The best `width` answers of each group; every group searches to the end."""
    open_: list[list[tuple[list[int], float]]] = [[([], 0.0)] for _ in range(groups)]
    done: list[list[tuple[list[int], float]]] = [[] for _ in range(groups)]
    for step in range(1, longest + 1):
        chosen: list[int] = []
        for group in range(groups):
            grown = []
            for tokens, total in open_[group]:
                logprobs = decoder(torch.tensor([[*PROMPT, *tokens]]))[0, -1].log_softmax(-1)
                for token, logprob in enumerate(logprobs.tolist()):
                    grown.append(([*tokens, token], total + logprob - penalty * chosen.count(token)))
            grown.sort(key=lambda answer: -answer[1])
            over = [tokens[-1] in stop or step == longest for tokens, _ in grown]
            done[group] += [
                (tokens, total / step) for (tokens, total), end in zip(grown[:width], over[:width], strict=True) if end
            ]
            open_[group] = [answer for answer, end in zip(grown, over, strict=True) if not end][:width]
            chosen += [tokens[-1] for tokens, _ in open_[group]]
    return [answer for group in done for answer in sorted(group, key=lambda answer: -answer[1])[:width]]


def test_one_group_is_plain_beam_search(pair: tuple[Any, Decoder]) -> None:
    """What Search refuses as a request, the search itself may be asked: groups cost nothing where there is one."""
    plain = Search(4, 4)
    single = Search(4, 4)
    object.__setattr__(single, "diversity_penalty", 0.5)
    assert beams(pair[1], single, stop={2}) == beams(pair[1], plain, stop={2})


def test_patience_waits_for_more_answers(pair: tuple[Any, Decoder]) -> None:
    stop = set(range(0, 60, 3))
    trees: dict[float, Tree] = {patience: [] for patience in (0.5, 1.0, 3.0)}
    for patience, tree in trees.items():
        search = Search(4, 1, early_stopping=True, patience=patience)
        found = beams(pair[1], search, stop=stop, max_new_tokens=20, tree=tree)
        finished = [node for step in tree for node in step["beams"] if node["state"] == "finished"]
        before = [node for step in tree[:-1] for node in step["beams"] if node["state"] == "finished"]
        assert len(before) < 4 * patience <= len(finished)
        assert found[0].score == pytest.approx(max(node["score"] for node in finished))
    assert len(trees[0.5]) < len(trees[1.0]) < len(trees[3.0])


def test_the_tree_holds_every_answer_and_pruning_shows_in_it(pair: tuple[Any, Decoder]) -> None:
    tree: Tree = []
    stop = set(range(0, 60, 3))
    search = Search(6, 2, length_penalty=0.0, early_stopping="never")
    found = beams(pair[1], search, stop=stop, max_new_tokens=12, tree=tree)
    nodes = {node["id"]: node for step in tree for node in step["beams"]}
    assert len(nodes) == sum(len(step["beams"]) for step in tree)
    finished = {}
    for node in nodes.values():
        path, at = [], node
        while True:
            path.append(at)
            if at["parent"] == 0:
                break
            at = nodes[at["parent"]]
            assert at["state"] == "open"
        assert node["total"] == pytest.approx(sum(step["logprob"] for step in path), abs=1e-5)
        assert node["score"] == node["total"]
        if node["state"] == "finished":
            finished[tuple(step["token"] for step in reversed(path))] = node["score"]
    assert all(finished[tuple(answer.tokens)] == answer.score for answer in found)
    assert any(node["state"] == "pruned" for node in nodes.values())
    assert json.loads(json.dumps(tree)) == tree


@pytest.mark.parametrize(("alpha", "top_k"), [(0.6, 4), (0.3, 8), (1.0, 3)])
def test_contrastive_search_equals_the_papers_formula(pair: tuple[Any, Decoder], alpha: float, top_k: int) -> None:
    decoder = pair[1]
    sampling = Sampling(max_new_tokens=16, top_k=top_k)
    rows = HiddenRows(decoder, PROMPT, width=top_k, max_new_tokens=16)
    found = contrastive_search(rows, sampling, alpha, Ending())
    tokens, values = list(PROMPT), []
    with torch.inference_mode():
        for _ in range(16):
            probabilities = decoder(torch.tensor([tokens]))[0, -1].softmax(-1)
            ranked = []
            for token in probabilities.topk(top_k).indices.tolist():
                hidden = decoder.hidden(torch.tensor([[*tokens, token]]))[0]
                likeness = max(float(torch.cosine_similarity(hidden[-1], other, dim=0)) for other in hidden[:-1])
                ranked.append(((1 - alpha) * float(probabilities[token]) - alpha * likeness, token))
            value, token = max(ranked)
            tokens.append(token)
            values.append(value)
    assert found.tokens == tokens[len(PROMPT) :]
    assert found.score == pytest.approx(sum(values) / 16, abs=1e-5)


@pytest.mark.parametrize("layers", ["low", "high", (0, 1, 3)])
@torch.inference_mode()
def test_dola_equals_the_papers_formula(pair: tuple[Any, Decoder], layers: Any) -> None:
    oracle, decoder = pair
    rows = DolaRows(decoder, PROMPT, layers=layers, width=1, max_new_tokens=12)
    assert rows.layers == {"low": [0], "high": [2]}.get(layers, [0, 1, 3])
    tokens, chosen = list(PROMPT), set()
    scores = rows.begin()[0]
    for _ in range(12):
        states = oracle(torch.tensor([tokens]), output_hidden_states=True).hidden_states
        # transformers' last hidden state has seen the last norm, the earlier ones have not.
        last = oracle.lm_head(states[-1])[0, -1].double().softmax(-1)
        early = {layer: oracle.lm_head(states[layer])[0, -1].double().softmax(-1) for layer in rows.layers}
        premature = max(rows.layers, key=lambda layer: divergence(last, early[layer]))
        chosen.add(premature)
        expected = torch.where(last >= 0.1 * last.max(), last.log() - early[premature].log(), -math.inf)
        torch.testing.assert_close(scores.double(), expected, atol=1e-4, rtol=0)
        tokens.append(int(expected.argmax()))
        scores = rows.step(tokens[-1:], [0])[0]
    assert len(chosen) > 1 or len(rows.layers) == 1  # or nothing of the choice would have been tested


def divergence(p: Tensor, q: Tensor) -> float:
    """Jensen–Shannon."""
    middle = (p + q) / 2
    return float(((p * (p / middle).log()).sum() + (q * (q / middle).log()).sum()) / 2)


@pytest.mark.parametrize(
    ("layers", "tied", "kind", "expected"),
    [
        (32, False, "low", list(range(0, 16, 2))),
        (32, True, "low", list(range(2, 16, 2))),
        (32, False, "high", list(range(16, 32, 2))),
        (80, False, "high", list(range(60, 80, 2))),
        (80, False, "low", list(range(0, 20, 2))),
        (2, True, "low", [1]),
        (1, False, "high", [0]),
        (12, False, (5, 1, 5), [1, 5]),
    ],
)
def test_buckets_of_layers(layers: int, tied: bool, kind: Any, expected: list[int]) -> None:
    assert premature_layers(layers, kind, tied=tied) == expected


def test_layers_that_the_model_lacks_are_refused() -> None:
    with pytest.raises(UserError, match=r"dola_layers names 12, .* 0 to 11"):
        premature_layers(12, (3, 12), tied=False)


@pytest.mark.parametrize("negative", [None, [5, 9, 2, 6, 5, 3], [7]])
@torch.inference_mode()
def test_guidance_equals_two_models_side_by_side(pair: tuple[Any, Decoder], negative: list[int] | None) -> None:
    decoder = pair[1]
    rows = GuidedRows(decoder, PROMPT, scale=1.7, negative=negative, width=3, max_new_tokens=6)
    unlike = PROMPT[-1:] if negative is None else negative
    answers: list[list[int]] = [[]]
    scores = rows.begin()
    for step in range(5):
        for answer, row in zip(answers, scores, strict=True):
            with_, without = (
                decoder(torch.tensor([[*prompt, *answer]]))[0, -1].log_softmax(-1) for prompt in (PROMPT, unlike)
            )
            torch.testing.assert_close(row, without + 1.7 * (with_ - without), atol=1e-4, rtol=1e-4)
        parents = [0, 0, 0] if step == 0 else [2, 0, 2]
        answers = [[*answers[parent], step + row] for row, parent in enumerate(parents)]
        scores = rows.step([answer[-1] for answer in answers], parents)
    plain = GuidedRows(decoder, PROMPT, scale=1.0, negative=negative, width=1, max_new_tokens=6)
    torch.testing.assert_close(
        plain.begin(), Rows(decoder, PROMPT, width=1, max_new_tokens=6).begin().log_softmax(-1), atol=1e-5, rtol=1e-5
    )


def test_samples_are_those_of_one_at_a_time(pair: tuple[Any, Decoder]) -> None:
    stop = Ending(frozenset({2, 5, 7, 11, 13}))
    sampling = Sampling(max_new_tokens=12, seed=5)

    def drawn(number: int, seed: int) -> list[Hypothesis]:
        rows = Rows(pair[1], PROMPT, width=number, max_new_tokens=12)
        return sample(rows, replace(sampling, seed=seed), number, stop)

    together = drawn(6, 5)
    assert [answer.tokens for answer in together] == [drawn(1, 5 + row)[0].tokens for row in range(6)]
    assert len({tuple(answer.tokens) for answer in together}) == 6
    for answer in together:
        with torch.inference_mode():
            logprobs = pair[1](torch.tensor([[*PROMPT, *answer.tokens]]))[0, len(PROMPT) - 1 : -1].log_softmax(-1)
        total = float(logprobs[range(len(answer.tokens)), answer.tokens].sum())
        assert answer.logprob == pytest.approx(total, abs=1e-4)
        assert answer.score == pytest.approx(total / len(answer.tokens), abs=1e-4)


@pytest.mark.parametrize(
    ("text", "pattern", "expected"),
    [
        ("It is 3 + 4 = 7.", None, "7"),
        ("So 1,000 it is", None, "1000"),
        ("about 1000.50", None, "1000.5"),
        ("minus: -12.0", None, "-12"),
        ("10-5", None, "5"),
        ("ab1,2", None, "2"),
        ("-0.0", None, "0"),
        (".5", None, "0.5"),
        ("none", None, None),
        ("Answer: B. Answer: C", r"Answer: (\w)", "C"),
        ("yes or no", r"yes|no", "no"),
        ("yes", r"(no)|yes", None),
        ("no match", r"\d", None),
    ],
)
def test_the_answer_in_a_text(text: str, pattern: str | None, expected: str | None) -> None:
    assert answer_in(text, pattern) == expected


def test_votes_are_counted_and_ties_go_to_the_more_probable() -> None:
    result = vote(["it is 4", "4.0", "5", "?", "5", "6"], [-3.0, -2.0, -1.0, 0.0, -4.0, -0.1])
    assert (result.winner, result.counts) == ("5", [("5", 2), ("4", 2), ("6", 1)])
    assert result.answers == ["4", "4", "5", None, "5", "6"]
    assert vote(["a", "b"], [0.0, 0.0]).winner is None


@pytest.mark.parametrize(
    ("ours_", "theirs"),
    [
        ({"min_new_tokens": 6}, {"min_new_tokens": 6}),
        ({"no_repeat_ngram_size": 2}, {"no_repeat_ngram_size": 2}),
        ({"banned_words": ((5,), (7, 8))}, {"bad_words_ids": [[5], [7, 8]]}),
        ({"logit_bias": ((9, 4.0), (11, -3.0))}, {"sequence_bias": [[[9], 4.0], [[11], -3.0]]}),
    ],
)
def test_processors_in_beams_equal_transformers_normalised_again(
    pair: tuple[Any, Decoder], ours_: dict[str, Any], theirs: dict[str, Any]
) -> None:
    oracle, decoder = pair
    stop, prompt = list(range(0, 60, 4)), torch.tensor([PROMPT])
    expected = oracle.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False, num_beams=4,
        num_return_sequences=4, eos_token_id=stop, pad_token_id=59, renormalize_logits=True,
        return_dict_in_generate=True, output_scores=True, **theirs,
    )  # fmt: skip
    found = beams(decoder, Search(4, 4), stop=stop, max_new_tokens=12, stop_token_ids=tuple(stop), **ours_)
    for answer, tokens in zip(found, expected.sequences[:, len(PROMPT) :].tolist(), strict=True):
        assert tokens[: len(answer.tokens)] == answer.tokens
    assert [answer.score for answer in found] == pytest.approx(expected.sequences_scores.tolist(), abs=1e-4)


def test_penalties_count_in_beams_as_where_tokens_are_drawn(pair: tuple[Any, Decoder]) -> None:
    settings: dict[str, Any] = {"repetition_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": 0.2}
    settings |= {"dry_multiplier": 0.8, "max_new_tokens": 20}
    rows = Rows(pair[1], PROMPT, width=1, max_new_tokens=20)
    greedy = sample(rows, Sampling(temperature=0, **settings), 1, Ending())[0]
    single = beams(pair[1], Search(), **settings)[0]
    assert single.tokens == greedy.tokens != beams(pair[1], Search(), max_new_tokens=20)[0].tokens
    assert single.logprob == pytest.approx(greedy.logprob, abs=1e-4)
    assert single.score < 0 and single.score * 20 != pytest.approx(single.logprob)


def test_where_nothing_may_follow_an_answer_ends_and_a_prompt_is_refused(pair: tuple[Any, Decoder]) -> None:
    few = {"allowed_tokens": (10, 11), "banned_words": ((10, 10), (10, 11), (11, 10), (11, 11)), "max_new_tokens": 5}
    found = beams(pair[1], Search(4, 4), **few)
    assert sorted(answer.tokens for answer in found) == [[10], [11]]
    rows = Rows(pair[1], PROMPT, width=3, max_new_tokens=5)
    assert {len(answer.tokens) for answer in sample(rows, Sampling(**few), 3, Ending())} == {1}
    hidden = HiddenRows(pair[1], PROMPT, width=2, max_new_tokens=5)
    assert len(contrastive_search(hidden, Sampling(top_k=2, **few), 0.5, Ending()).tokens) == 1
    none = Sampling(allowed_tokens=(10,), banned_words=((10, 11), (1, 10)), max_new_tokens=5)
    for search in (
        lambda: beam_search(Rows(pair[1], PROMPT, width=2, max_new_tokens=5), none, Search(2), Ending()),
        lambda: sample(Rows(pair[1], PROMPT, width=2, max_new_tokens=5), none, 2, Ending()),
        lambda: contrastive_search(hidden_rows(pair[1]), replace(none, top_k=2), 0.5, Ending()),
    ):
        with pytest.raises(UserError, match="nothing may follow"):
            search()


def hidden_rows(decoder: Decoder) -> HiddenRows:
    return HiddenRows(decoder, PROMPT, width=2, max_new_tokens=5)


def test_prompts_that_do_not_fit_are_refused_and_long_answers_cut(tiny: Decoder) -> None:
    with pytest.raises(UserError, match=r"128 tokens, the model's context is 128"):
        Rows(tiny, [1] * 128, width=2, max_new_tokens=5)
    with pytest.raises(UserError, match="empty"):
        Rows(tiny, [], width=2, max_new_tokens=5)
    with pytest.raises(UserError, match="empty"):
        GuidedRows(tiny, [1], scale=2.0, negative=[], width=2, max_new_tokens=5)
    rows = Rows(tiny, [1] * 126, width=2, max_new_tokens=5)
    assert [len(answer.tokens) for answer in beam_search(rows, Sampling(), Search(2, 2), Ending())] == [2, 2]


@torch.inference_mode()
def test_rows_of_a_cache_are_put_in_any_order_and_number(tiny: Decoder) -> None:
    cache = KVCache(tiny.config, 3, 8)
    ids = torch.tensor([[1, 2, 3], [1, 4, 0], [1, 0, 2]])
    tiny.hidden(ids, cache=cache)
    for rows, since in (([2, 0, 2], 1), ([1], 0), ([0, 0, 0], 1), ([0, 1], 3)):
        cache.select(rows, since)
        ids = ids[rows]
        assert cache.batch_size == len(rows)
    tokens = torch.tensor([[4], [2]])
    expected = tiny(torch.cat((ids, tokens), dim=1))[:, -1]
    torch.testing.assert_close(tiny(tokens, cache=cache)[:, -1], expected, atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def model(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with the workshop's tokenizer."""
    from bottega.tokenizer.files import write_tokenizer

    folder = tmp_path_factory.mktemp("models") / "random"
    oracle_model(384, 0.3).save_pretrained(folder)
    write_tokenizer(workshop.tokenizer, folder)
    return folder


def generate(model: Path, **settings: Any) -> dict[str, Any]:
    from bottega import verbs

    return verbs.generate(**{"model": str(model), "prompt": "The river", "max_new_tokens": 8, "threads": 1} | settings)


def test_the_verb_gives_the_best_and_all(model: Path) -> None:
    plain = generate(model, temperature=0.0)
    for search in ({"num_beams": 4, "num_return_sequences": 3}, {"best_of": 4, "num_return_sequences": 3, "seed": 1}):
        data = generate(model, **search)
        assert data.keys() == plain.keys() | {"sequences"}
        scores = [sequence["score"] for sequence in data["sequences"]]
        assert len(scores) == 3 and scores == sorted(scores, reverse=True)
        assert data["text"] == data["sequences"][0]["text"] and data["token_ids"] == data["sequences"][0]["token_ids"]
        assert json.loads(json.dumps(data)) == data
    assert generate(model, temperature=0.0, guidance_scale=1.0) == plain
    guided = generate(model, temperature=0.0, guidance_scale=1.0 + 1e-9)
    assert guided["token_ids"] == plain["token_ids"] and "sequences" in guided
    assert generate(model, temperature=0.0, guidance_scale=3.0)["token_ids"] != plain["token_ids"]
    other = generate(model, temperature=0.0, guidance_scale=3.0, negative_prompt="A stone keeps")
    assert other["token_ids"] != generate(model, temperature=0.0, guidance_scale=3.0)["token_ids"]
    assert generate(model, temperature=0.0, dola_layers="high")["token_ids"] != plain["token_ids"]
    assert generate(model, penalty_alpha=0.5, top_k=4)["prompt_tokens"] == plain["prompt_tokens"]


def test_self_consistency_counts_what_the_samples_say(model: Path) -> None:
    data = generate(model, self_consistency=9, seed=3, answer_pattern="([aeiou])", max_new_tokens=20)
    said = [answer_in(sequence["text"], "([aeiou])") for sequence in data["sequences"]]
    assert said == [sequence["answer"] for sequence in data["sequences"]]
    assert sum(vote["count"] for vote in data["votes"]) == sum(answer is not None for answer in said) > 1
    assert data["answer"] == said[0] == data["votes"][0]["answer"]
    assert data["votes"][0]["count"] == max(said.count(answer) for answer in set(said) - {None})


def test_stop_strings_end_beams(model: Path) -> None:
    from bottega.tokenizer.tokenizer import Tokenizer

    stop, decode = ("a", "e", "o"), Tokenizer.load(model).decode
    data = generate(model, num_beams=4, num_return_sequences=4, early_stopping=True, max_new_tokens=20, stop=stop)
    assert {sequence["finish_reason"] for sequence in data["sequences"]} == {"stop"}
    for sequence in data["sequences"]:
        whole, ids = decode(sequence["token_ids"]), sequence["token_ids"]
        assert any(text in whole for text in stop) and not any(text in decode(ids[:-1]) for text in stop)
        assert sequence["text"] == whole[: min(whole.find(text) for text in stop if text in whole)]


def test_the_terminal_shows_the_best_with_their_scores(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bottega.cli.main import main

    words = (
        f"bottega generate {model} --prompt The --num-beams 4 --num-return-sequences 2 --max-new-tokens 5 --threads 1"
    )
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr("sys.argv", words.split())
        patch.setenv("COLUMNS", "200")
        main()
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    title = next(index for index, line in enumerate(lines) if line.startswith("The best 2 of 4 beams"))
    assert "score" in lines[title + 1]
    assert [line.split()[0] for line in lines[title + 2 : title + 4]] == ["1", "2"]


@pytest.mark.parametrize(
    ("settings", "both"),
    [
        ({"length_penalty": 2.0}, ("length_penalty", "num_beams")),
        ({"early_stopping": True}, ("early_stopping", "num_beams")),
        ({"num_beams": 2, "patience": 2.0}, ("patience", "early_stopping")),
        ({"num_beams": 4, "num_beam_groups": 3}, ("num_beam_groups", "num_beams")),
        ({"num_beams": 4, "num_beam_groups": 2}, ("num_beam_groups", "diversity_penalty")),
        ({"num_beams": 4, "diversity_penalty": 0.5}, ("num_beam_groups", "diversity_penalty")),
        ({"num_beams": 2, "num_return_sequences": 3}, ("num_return_sequences", "num_beams")),
        ({"num_beams": 2, "best_of": 2}, ("num_beams", "best_of")),
        ({"best_of": 2, "self_consistency": 2}, ("best_of", "self_consistency")),
        ({"num_beams": 2, "penalty_alpha": 0.5, "top_k": 4}, ("num_beams", "penalty_alpha")),
        ({"penalty_alpha": 0.5}, ("penalty_alpha", "top_k")),
        ({"penalty_alpha": 0.5, "top_k": 4, "dola_layers": "low"}, ("penalty_alpha", "dola_layers")),
        ({"guidance_scale": 2.0, "dola_layers": "low"}, ("guidance_scale", "dola_layers")),
        ({"negative_prompt": "x"}, ("negative_prompt", "guidance_scale")),
        ({"answer_pattern": "x"}, ("answer_pattern", "self_consistency")),
        ({"num_beams": 2, "top_p": 0.5}, ("num_beams", "top_p")),
        ({"num_beams": 2, "temperature": 0.5}, ("num_beams", "temperature")),
        ({"best_of": 2, "temperature": 0.0}, ("best_of", "temperature")),
        ({"self_consistency": 2, "answer_pattern": "("}, ("answer_pattern", "regular expression")),
        ({"dola_layers": "0,x"}, ("dola_layers", "low")),
        ({"dola_layers": "4"}, ("dola_layers", "0 to 3")),
        ({"num_beams": 2, "length_penalty": math.nan}, ("length_penalty", "-10 to 10")),
    ],
)
def test_contradictions_are_refused_before_anything_is_loaded(
    model: Path, settings: dict[str, Any], both: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bottega.generate.generator.Generator.load", pytest.fail)
    with pytest.raises(UserError) as refused:
        generate(model, **settings)
    assert all(name in str(refused.value) for name in both)
