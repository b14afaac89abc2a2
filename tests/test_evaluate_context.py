"""`bottega context`: the folder it writes opens in transformers, the measurement is what a loop would find."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from bottega import verbs
from bottega.checkpoint.config import ModelConfig
from bottega.core.errors import UserError
from bottega.core.progress import Quiet
from bottega.core.recipe import Chain, load_recipe, require_all
from bottega.evaluate.positions import buckets, perplexity_by_position
from bottega.generate.generator import Generator
from bottega.generate.sampling import Sampling
from bottega.model.load import load_decoder
from bottega.verbs.registry import VERBS
from conftest import Workshop

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def model(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 64 tokens' context, trained for a moment."""
    folder = tmp_path_factory.mktemp("context") / "model"
    verbs.train(
        data=workshop.tokens, tokenizer=workshop.tokenizer, out=folder, layers=1, hidden_size=64, row_length=64,
        tokens_per_step=512, tokens=30 * 512, learning_rate=1e-2, threads=1, dtype="float32",
    )  # fmt: skip
    folder /= "model"
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**data, "max_position_embeddings": 64}))
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from conftest import generated_text

    file = tmp_path_factory.mktemp("text") / "long.txt"
    file.write_text("\n".join(generated_text(seed) for seed in range(50, 56)))
    return file


@pytest.mark.parametrize("method", ["yarn", "linear", "dynamic", "ntk"])
def test_an_extended_folder(method: str, model: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "longer"
    found = verbs.context(model=str(model), to=256, method=method, text=text, out=out, threads=1)
    assert ModelConfig.read(out).context_length == 256 == found["context_length"][1]
    rows = found["by_position"]
    assert rows[-1]["last"] == 255 and all(math.isfinite(row[name]) for row in rows for name in ("as it was", method))
    # transformers computes the same with it, also behind the old context.
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
    ids = torch.randint(300, (1, 200))
    with torch.no_grad():
        expected, ours = theirs(ids).logits, load_decoder(out)(ids)
    assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max()
    # And it goes on past the old context when it generates.
    answer = Generator.load(out, threads=1).complete(
        ids[0, :100].tolist(), Sampling(100, temperature=0.0, logprobs=True)
    )
    assert 1 <= len(answer.token_ids) <= 100 and all(
        piece.logprob is not None and math.isfinite(piece.logprob) for piece in answer.pieces
    )


def test_documents_are_read_one_behind_the_other(model: Path, tmp_path: Path) -> None:
    """However short the first and long the second: the pieces go across documents."""
    file = tmp_path / "two.jsonl"
    file.write_text("\n".join(json.dumps({"text": text}) for text in ("A short one.", "the cat " * 500)))
    found = verbs.context(model=str(model), to=128, text=file, out=tmp_path / "longer", threads=1)
    assert found["by_position"][-1]["last"] == 127


def test_a_chain_extends_what_it_makes(model: Path, text: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "longer.yaml"
    recipe.write_text(
        f"name: longer\nsteps:\n  first: {{verb: context, model: {model}, to: 128, text: {text}, threads: 1}}\n"
        f"  second: {{verb: tokenizer extend, model: '${{first}}', add: [<a>]}}\n"
    )
    chain = Chain(load_recipe(str(recipe)), tmp_path / "w", VERBS)
    require_all(chain.plan())
    assert len(chain.run(Quiet())) == 2
    assert ModelConfig.read(tmp_path / "w" / "longer" / "second").context_length == 128


def test_perplexity_by_position_is_that_of_a_loop(model: Path) -> None:
    decoder = load_decoder(model, dtype=torch.float64)
    pieces = torch.randint(300, (3, 64)).tolist()
    found = perplexity_by_position(decoder, pieces)
    with torch.no_grad():
        nats = [
            F.cross_entropy(decoder(torch.tensor([p]))[0, :-1], torch.tensor(p[1:]), reduction="none") for p in pieces
        ]
    assert [(b.first, b.last) for b in found] == [(first + 1, last + 1) for first, last in buckets(63)]
    for bucket in found:
        expected = torch.stack(nats)[:, bucket.first - 1 : bucket.last - 1].mean()
        assert bucket.nats == pytest.approx(float(expected), rel=1e-6) and bucket.tokens == 3 * (
            bucket.last - bucket.first
        )


@pytest.mark.parametrize("length", [1, 15, 16, 17, 63, 64, 100, 4095])
def test_buckets_cover_every_position_once(length: int) -> None:
    found = buckets(length)
    assert [place for first, last in found for place in range(first, last)] == list(range(length))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"to": 32}, "from 64 to 32 tokens"),
        ({"method": "spiral"}, "method"),
        ({"text": "nowhere"}, "there is no file"),
        ({"to": 1}, "to"),
    ],
)
def test_wrong_settings_are_said(settings: dict[str, Any], said: str, model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        verbs.context(**{"model": str(model), "to": 128, "out": tmp_path / "out", "threads": 1, **settings})
    assert said in error.value.message and not (tmp_path / "out").exists()


def test_positions_that_are_scaled_already_are_refused(model: Path, text: Path, tmp_path: Path) -> None:
    verbs.context(model=str(model), to=128, text=text, out=tmp_path / "once", threads=1)
    with pytest.raises(UserError, match="only plain ones are extended"):
        verbs.context(model=str(tmp_path / "once"), to=256, text=text, out=tmp_path / "twice", threads=1)
