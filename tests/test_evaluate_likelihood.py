import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bottega.checkpoint.config import ModelConfig
from bottega.core.errors import BottegaError, UserError
from bottega.evaluate.compare import compare_models, difference
from bottega.evaluate.likelihood import (
    Likelihood,
    Windowing,
    nats_of,
    packs,
    score_documents,
    spans,
    windows,
)
from bottega.evaluate.texts import Document
from bottega.model.decoder import Decoder

VOCABULARY = 97
CONFIG = ModelConfig(
    vocab_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
    initializer_range=0.4,
)


def random_decoder(seed: int, config: ModelConfig = CONFIG) -> Decoder:
    return Decoder(config).initialise(torch.Generator().manual_seed(seed)).eval()


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return random_decoder(0)


def random_documents(*lengths: int, seed: int = 0) -> list[Document]:
    generator = np.random.default_rng(seed)
    return [Document(generator.integers(1, VOCABULARY, size=n).tolist(), b"x" * (3 * n)) for n in lengths]


def one_pass(decoder: Decoder, ids: list[int], prefix: int) -> np.ndarray:
    """Every token behind everything before it: the definition, with no window."""
    with torch.inference_mode():
        logits = decoder(torch.tensor([[prefix, *ids[:-1]]]))[0].double()
    return -logits.log_softmax(-1)[range(len(ids)), ids].numpy()


def test_equals_the_log_softmax_of_transformers(decoder: Decoder) -> None:
    transformers = pytest.importorskip("transformers")
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    sizes = {name: getattr(CONFIG, name) for name in (*names, "num_key_value_heads", "head_dim", "rms_norm_eps")}
    peer = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, max_position_embeddings=64))
    peer.load_state_dict(decoder.state_dict())
    documents = random_documents(40, 1, 17)
    found = score_documents(decoder, documents, Windowing(64, 32, 5), batch_tokens=50)
    for document, nats in zip(documents, found.nats, strict=True):
        with torch.inference_mode():
            logits = peer.eval()(torch.tensor([[5, *document.ids]])).logits[0, :-1]
        expected = -logits.log_softmax(-1)[range(len(document.ids)), document.ids]
        assert nats == pytest.approx(expected.numpy(), abs=1e-4)
    assert found.tokens == 58


@given(st.integers(0, 300), st.integers(1, 50), st.integers(1, 50))
def test_every_token_is_scored_once_with_at_least_its_context(length: int, context: int, stride: int) -> None:
    stride = min(stride, context)
    each = list(spans(length, context, stride))
    scored = [target for _, first, last in each for target in range(first, last)]
    assert scored == list(range(length))
    for start, first, last in each:
        assert 0 <= start <= first < last <= length and last - start <= context
        # Target t stands behind t + 1 inputs (the prefix is one).
        assert first + 1 - start >= min(first + 1, context - stride + 1)


def rolling(tokens: list[int], prefix: int, longest: int) -> Iterator[tuple[list[int], list[int]]]:
    """(context, scored tokens) by the rule of lm-eval's loglikelihood_rolling with context_len 1."""
    predicted = min(longest, len(tokens))
    yield [prefix], tokens[:predicted]
    while predicted < len(tokens):
        count = min(len(tokens) - predicted, longest)
        end = predicted + count
        before = tokens[end - longest - 1 : end - 1]
        yield before[: len(before) - (count - 1)], tokens[end - count : end]
        predicted = end


@pytest.mark.parametrize("length", [1, 15, 16, 17, 32, 45])
def test_stride_equal_to_context_is_the_rolling_rule_of_lm_eval(length: int) -> None:
    documents = random_documents(length)
    ours = list(windows(documents, Windowing(16, 16, 9)))
    theirs = list(rolling(documents[0].ids, 9, 16))
    assert [(w.inputs[: 1 - (w.last - w.first) or None], documents[0].ids[w.first : w.last]) for w in ours] == theirs


def test_stride_equal_to_context_scores_disjoint_pieces(decoder: Decoder) -> None:
    (document,) = random_documents(48)
    found = score_documents(decoder, [document], Windowing(16, 16, 3)).nats[0]
    sequence = [3, *document.ids]
    pieces = [one_pass(decoder, sequence[start + 1 : start + 17], sequence[start]) for start in (0, 16, 32)]
    assert found == pytest.approx(np.concatenate(pieces), abs=1e-4)


def test_context_longer_than_the_text_is_one_pass(decoder: Decoder) -> None:
    (document,) = random_documents(50)
    expected = one_pass(decoder, document.ids, 3)
    for context, stride in [(64, 32), (50, 1), (60, 60)]:
        assert score_documents(decoder, [document], Windowing(context, stride, 3)).nats[0] == pytest.approx(
            expected, abs=1e-4
        )


def test_sliding_windows_equal_brute_force_per_token(decoder: Decoder) -> None:
    (document,) = random_documents(45)
    found = score_documents(decoder, [document], Windowing(12, 5, 3)).nats[0]
    sequence = [3, *document.ids]
    for start, first, last in spans(45, 12, 5):
        for target in range(first, last):
            expected = one_pass(decoder, sequence[start + 1 : target + 2], sequence[start])[-1]
            assert found[target] == pytest.approx(expected, abs=1e-4)


def test_batching_and_chunking_change_nothing(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = random_documents(30, 3, 64, 9, 30)
    windowing = Windowing(20, 10, 1)
    whole = score_documents(decoder, documents, windowing)
    assert sum(len(pack) > 1 for pack in packs(windows(documents, windowing), 60)) > 1
    monkeypatch.setattr("bottega.evaluate.likelihood.LOGITS_AT_ONCE", 7 * VOCABULARY)
    seen: list[int] = []
    small = score_documents(decoder, documents, windowing, batch_tokens=60, progress=seen.append)
    assert sum(seen) == whole.tokens
    for a, b in zip(whole.nats, small.nats, strict=True):
        assert a == pytest.approx(b, abs=1e-4)


def test_full_logits_never_stand_in_memory(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bottega.evaluate.likelihood.LOGITS_AT_ONCE", 10 * VOCABULARY)
    rows: list[int] = []
    logits = Decoder.logits
    monkeypatch.setattr(Decoder, "logits", lambda self, hidden: rows.append(len(hidden)) or logits(self, hidden))
    score_documents(decoder, random_documents(64), Windowing(64, 64, 0))
    assert sum(rows) == 64 and max(rows) == 10


def test_without_a_prefix_the_first_token_costs_a_uniform_guess(decoder: Decoder) -> None:
    documents = random_documents(20, 1)
    first, single = score_documents(decoder, documents, Windowing(64, 32, None)).nats
    assert first[0] == single[0] == math.log(VOCABULARY)
    assert first[1:] == pytest.approx(one_pass(decoder, documents[0].ids[1:], documents[0].ids[0]), abs=1e-4)


def test_figures_follow_their_definitions() -> None:
    found = Likelihood([np.array([1.0, 3.0]), np.array([2.0])], [4, 2], Windowing(8, 4, 0))
    data = found.as_data()
    assert data["tokens"] == 3 and data["bytes"] == 6 and data["documents"] == 2
    assert data["perplexity"] == pytest.approx(math.exp(2.0))
    assert data["bits_per_byte"] == pytest.approx(6 / (math.log(2) * 6))
    assert data["context"] == 8 and data["stride"] == 4
    assert Likelihood([np.ones(3)], [4], Windowing(8, 4, 0)).as_data()["bits_per_byte_interval"] is None


def test_low_precision_logits_are_scored_in_float32() -> None:
    logits = torch.randn(50, 1000, generator=torch.Generator().manual_seed(0)).bfloat16() * 3
    targets = torch.arange(50)
    exact = -logits.double().log_softmax(-1)[range(50), targets]
    assert torch.allclose(nats_of(logits, targets).double(), exact, atol=1e-5)
    assert nats_of(logits.double(), targets).dtype == torch.float64


def test_what_cannot_be_scored_is_an_error(decoder: Decoder) -> None:
    with pytest.raises(UserError, match="vocabulary of 97"):
        score_documents(decoder, [Document([5, 97], b"xx")], Windowing(8, 4, 0))
    with pytest.raises(UserError, match="no text"):
        score_documents(decoder, [], Windowing(8, 4, 0))
    with pytest.raises(UserError, match="stride 9"):
        Windowing(8, 9, 0)
    damaged = random_decoder(1)
    damaged.model.norm.weight.data[3] = math.nan
    with pytest.raises(BottegaError, match="no finite probability to token 0 of document 0"):
        score_documents(damaged, random_documents(5), Windowing(8, 4, 0))


def test_a_model_compared_with_itself(decoder: Decoder) -> None:
    documents = random_documents(30, 12)
    data = compare_models(decoder, decoder, documents, Windowing(16, 8, 2)).as_data()
    assert data["kl_mean"] == data["kl_p99"] == data["kl_max"] == 0.0
    assert data["top1_agreement"] == 1.0
    assert data["bits_per_byte_difference"] == 0.0
    alone = score_documents(decoder, documents, Windowing(16, 8, 2)).as_data()
    assert data["reference"]["nats_per_token"] == pytest.approx(alone["nats_per_token"])
    assert data["compared_tokens"] == 42


def test_comparison_equals_brute_force(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bottega.evaluate.likelihood.LOGITS_AT_ONCE", 7 * VOCABULARY)
    other = random_decoder(7)
    documents = random_documents(40, 25)
    found = compare_models(decoder, other, documents, Windowing(64, 32, 2), batch_tokens=40)
    kl, agree = [], []
    for document in documents:
        ids = torch.tensor([[2, *document.ids[:-1]]])
        with torch.inference_mode():
            ours, theirs = decoder(ids)[0].double(), other(ids)[0].double()
        p, log_ratio = theirs.softmax(-1), theirs.log_softmax(-1) - ours.log_softmax(-1)
        kl += (p * log_ratio).sum(-1).tolist()
        agree += (ours.argmax(-1) == theirs.argmax(-1)).tolist()
    data = found.as_data()
    assert data["kl_mean"] == pytest.approx(np.mean(kl), rel=1e-4)
    assert data["kl_p99"] == pytest.approx(np.quantile(kl, 0.99), rel=1e-4)
    assert data["top1_agreement"] == pytest.approx(np.mean(agree))
    assert 0 < data["kl_mean_interval"][0] < data["kl_mean"] < data["kl_mean_interval"][1]
    for mine, one in ((found.model, decoder), (found.reference, other)):
        alone = score_documents(one, documents, Windowing(64, 32, 2))
        assert all(a == pytest.approx(b, abs=1e-4) for a, b in zip(mine.nats, alone.nats, strict=True))


def test_comparison_without_a_prefix_leaves_the_first_token_out(decoder: Decoder) -> None:
    data = compare_models(decoder, random_decoder(7), random_documents(10, 5), Windowing(8, 4, None)).as_data()
    assert data["compared_tokens"] == 13 and data["reference"]["tokens"] == 15


def test_different_vocabularies_say_what_is_impossible(decoder: Decoder) -> None:
    other = random_decoder(0, replace(CONFIG, vocab_size=98))
    with pytest.raises(UserError, match="kl_mean, kl_p99, top1_agreement") as error:
        compare_models(decoder, other, random_documents(4), Windowing(8, 4, 0))
    assert "Bits per byte" in error.value.hint


def test_difference_in_bits_per_byte_is_paired_by_document() -> None:
    generator = np.random.default_rng(0)
    base = [generator.random(50) * scale for scale in generator.random(30) * 10]
    worse = [each + 0.1 for each in base]
    sizes = [100] * 30
    data = difference(Likelihood(worse, sizes, Windowing(8, 4, 0)), Likelihood(base, sizes, Windowing(8, 4, 0)))
    assert data["bits_per_byte_difference"] == pytest.approx(0.05 / math.log(2))
    low, high = data["bits_per_byte_difference_interval"]
    assert high - low < 1e-9
