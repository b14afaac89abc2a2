"""Beam search against brute force and transformers; what every search shares."""

from __future__ import annotations

import json
from collections.abc import Collection
from copy import deepcopy
from typing import Any

import pytest
import torch

from bottega.core.errors import UserError
from bottega.generate.search.beam import Tree, beam_search
from bottega.generate.search.contrastive import HiddenRows, contrastive_search
from bottega.generate.search.guidance import GuidedRows
from bottega.generate.search.hypothesis import Hypothesis, Reader
from bottega.generate.search.rows import Rows
from bottega.generate.search.settings import Search
from bottega.generate.search.vote import sample
from bottega.generate.settings import Sampling
from bottega.model.cache import KVCache
from bottega.model.decoder import Decoder
from search_models import PROMPT, oracle_model, ours

pytest.importorskip("transformers")


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
    decoder: Decoder,
    search: Search,
    *,
    stop: Collection[int] = (),
    tree: Tree | None = None,
    prompt: list[int] = PROMPT,
    **sampling: Any,
) -> list[Hypothesis]:
    settings = Sampling(**{"max_new_tokens": 5, "stop_token_ids": tuple(stop), **sampling})
    rows = Rows(decoder, prompt, width=search.num_beams, max_new_tokens=settings.max_new_tokens)
    return beam_search(rows, settings, search, Reader(settings), tree)


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


@pytest.mark.parametrize(
    ("length_penalty", "early_stopping"),
    [*((power, "never") for power in (4.0, 1.0, 0.3, 0.0, -0.5, -3.0)), *((power, False) for power in (0.0, -0.5))],
)
def test_beams_are_dropped_only_where_they_could_not_win(
    pair: tuple[Any, Decoder], length_penalty: float, early_stopping: Any
) -> None:
    """Against a search that goes on to the end, whatever it has found."""
    decoder = deepcopy(pair[1])
    decoder.lm_head.weight.data *= 5  # some answers begin improbably and go on certainly
    search = Search(5, 2, length_penalty, early_stopping)
    for first in range(3, 60, 5):
        prompt, stop = [first, 1, 4], {first % 7, *range(first % 4, 60, 4)}
        found = beams(decoder, search, stop=stop, prompt=prompt, max_new_tokens=6)
        expected = slow_beams(decoder, prompt, 1, 5, 0.0, stop, 6, length_penalty)[:2]
        assert [answer.tokens for answer in found] == [tokens for tokens, _ in expected]


def test_groups_search_one_after_the_other_and_avoid_what_earlier_ones_chose(tiny: Decoder) -> None:
    """Against Vijayakumar et al.'s algorithm 1 with recomputation."""
    for width, stop in ((1, set()), (2, set()), (2, {2}), (3, {4})):
        search = Search(3 * width, 3 * width, num_beam_groups=3, diversity_penalty=0.7, early_stopping="never")
        found = beams(tiny, search, stop=stop)
        expected = slow_beams(tiny, PROMPT, 3, width, 0.7, stop, 5, 1.0)[: 3 * width]
        assert [answer.tokens for answer in found] == [tokens for tokens, _ in expected]
        assert [answer.score for answer in found] == pytest.approx([score for _, score in expected], abs=1e-5)


@torch.inference_mode()
def slow_beams(
    decoder: Decoder,
    prompt: list[int],
    groups: int,
    width: int,
    penalty: float,
    stop: set[int],
    longest: int,
    power: float,
) -> list[tuple[list[int], float]]:
    """The best `width` answers of each group and their scores; every group searches to the end."""
    open_: list[list[tuple[list[int], float]]] = [[([], 0.0)] for _ in range(groups)]
    done: list[list[tuple[list[int], float]]] = [[] for _ in range(groups)]
    for step in range(1, longest + 1):
        chosen: list[int] = []
        for group in range(groups):
            texts = torch.tensor([[*prompt, *tokens] for tokens, _ in open_[group]])
            grown = [
                ([*tokens, token], total + logprob - penalty * chosen.count(token))
                for (tokens, total), line in zip(open_[group], decoder(texts)[:, -1].log_softmax(-1), strict=True)
                for token, logprob in enumerate(line.tolist())
            ]
            grown.sort(key=lambda answer: -answer[1])
            over = [tokens[-1] in stop or step == longest for tokens, _ in grown]
            best = zip(grown[:width], over[:width], strict=True)
            done[group] += [(tokens, total / step**power) for (tokens, total), end in best if end]
            open_[group] = [answer for answer, end in zip(grown, over, strict=True) if not end][:width]
            chosen += [tokens[-1] for tokens, _ in open_[group]]
    kept = [answer for group in done for answer in sorted(group, key=lambda answer: -answer[1])[:width]]
    return sorted(kept, key=lambda answer: -answer[1])


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
    found = beams(decoder, Search(4, 4), stop=stop, max_new_tokens=12, **ours_)
    for answer, tokens in zip(found, expected.sequences[:, len(PROMPT) :].tolist(), strict=True):
        assert tokens[: len(answer.tokens)] == answer.tokens
    assert [answer.score for answer in found] == pytest.approx(expected.sequences_scores.tolist(), abs=1e-4)


def test_penalties_count_in_beams_as_where_tokens_are_drawn(pair: tuple[Any, Decoder]) -> None:
    settings: dict[str, Any] = {"repetition_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": 0.2}
    settings |= {"dry_multiplier": 0.8, "max_new_tokens": 20}
    rows = Rows(pair[1], PROMPT, width=1, max_new_tokens=20)
    greedy = sample(rows, Sampling(temperature=0, **settings), 1, Reader(Sampling()))[0]
    single = beams(pair[1], Search(), **settings)[0]
    assert single.tokens == greedy.tokens != beams(pair[1], Search(), max_new_tokens=20)[0].tokens
    assert single.logprob == pytest.approx(greedy.logprob, abs=1e-4)
    assert single.score < 0 and single.score * 20 != pytest.approx(single.logprob)


def test_answers_that_come_to_where_every_token_is_forbidden_are_none(pair: tuple[Any, Decoder]) -> None:
    """Behind 10 may follow 11, behind 11 nothing; 12 may always follow itself."""
    banned = ((10, 10), (10, 12), (11, 10), (11, 11), (11, 12), (12, 10), (12, 11))
    some: dict[str, Any] = {"allowed_tokens": (10, 11, 12), "banned_words": banned, "max_new_tokens": 4, "seed": 0}
    none: dict[str, Any] = some | {"banned_words": (*banned, (12, 12))}
    assert [answer.tokens for answer in beams(pair[1], Search(4, 4), **some)] == [[12] * 4]

    def drawn(settings: dict[str, Any]) -> list[Hypothesis]:
        rows = Rows(pair[1], PROMPT, width=20, max_new_tokens=4)
        return sample(rows, Sampling(temperature=10.0, **settings), 20, Reader(Sampling()))

    assert {tuple(answer.tokens) for answer in drawn(some)} == {(12,) * 4}
    assert 0 < len(drawn(some)) < 20
    rows = HiddenRows(pair[1], PROMPT, width=2, max_new_tokens=4)
    for search in (
        lambda: beams(pair[1], Search(4), **none),
        lambda: drawn(none),
        lambda: contrastive_search(rows, Sampling(top_k=2, **none), 0.5, Reader(Sampling())),
    ):
        with pytest.raises(UserError, match="every token is forbidden"):
            search()


def test_prompts_that_do_not_fit_are_refused_and_long_answers_cut(tiny: Decoder) -> None:
    with pytest.raises(UserError, match=r"128 tokens, the model's context is 128"):
        Rows(tiny, [1] * 128, width=2, max_new_tokens=5)
    with pytest.raises(UserError, match="empty"):
        Rows(tiny, [], width=2, max_new_tokens=5)
    with pytest.raises(UserError, match="empty"):
        GuidedRows(tiny, [1], scale=2.0, negative=[], width=2, max_new_tokens=5)
    rows = Rows(tiny, [1] * 126, width=2, max_new_tokens=5)
    assert [len(answer.tokens) for answer in beam_search(rows, Sampling(), Search(2, 2), Reader(Sampling()))] == [2, 2]


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
