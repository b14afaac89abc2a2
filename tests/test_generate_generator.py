"""Generation against transformers, and what the engine promises: streams, stops, seeds, batches, refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bottega import verbs
from bottega.core.errors import UserError
from bottega.generate.answer import Answer
from bottega.generate.generator import Generator
from bottega.generate.sampling import Choice, Sampling
from conftest import Workshop

transformers = pytest.importorskip("transformers")
GREEDY = {"temperature": 0.0}


@pytest.fixture(scope="module")
def model(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tiny model by transformers, with the workshop's tokenizer: nothing of it was written by us."""
    from bottega.tokenizer.files import write_tokenizer

    folder = tmp_path_factory.mktemp("models") / "random"
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=384, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.3, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    write_tokenizer(workshop.tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def generator(model: Path) -> Generator:
    return Generator.load(model, device="cpu", dtype="float32", threads=1)


@pytest.mark.parametrize("seed", range(4))
def test_two_hundred_greedy_tokens_equal_transformers(model: Path, generator: Generator, seed: int) -> None:
    oracle = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    prompt = torch.randint(8, 384, (1, 12), generator=torch.Generator().manual_seed(seed))
    # Only the length may end it, so that all 200 are compared.
    expected = oracle.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=200, min_new_tokens=200, do_sample=False,
        suppress_tokens=None, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    stops, generator.tokenizer.stop_ids = generator.tokenizer.stop_ids, frozenset()
    try:
        ours = generator.complete(prompt[0].tolist(), Sampling(max_new_tokens=200, **GREEDY))
    finally:
        generator.tokenizer.stop_ids = stops
    assert ours.token_ids == expected[0, 12:].tolist()
    assert ours.finish_reason == "length"


def test_pieces_join_to_the_text_and_carry_the_models_own_probabilities(generator: Generator) -> None:
    prompt = generator.prompt_ids("The river", chat=False)
    pieces = list(generator.stream(prompt, Sampling(max_new_tokens=20, seed=1, temperature=2.0, top_logprobs=100)))
    assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].finish_reason in ("stop", "length")
    ids = torch.tensor([prompt + [piece.token_id for piece in pieces]])
    with torch.inference_mode():
        logprobs = generator.decoder(ids)[0, len(prompt) - 1 : -1].log_softmax(-1)
    for piece, row in zip(pieces, logprobs, strict=True):
        assert piece.logprob == pytest.approx(row[piece.token_id].item(), abs=1e-4)
        assert [value for _, value in piece.top] == pytest.approx(row.topk(100).values.tolist(), abs=1e-4)


def test_seeds_decide_and_batches_do_not(generator: Generator) -> None:
    prompts = [generator.prompt_ids(text, chat=False) for text in ("The river", "The stone", "A clock, a long one")]
    sampling = Sampling(max_new_tokens=16, seed=11)
    alone = [generator.complete(prompt, sampling).token_ids for prompt in prompts]
    assert alone == [generator.complete(prompt, sampling).token_ids for prompt in prompts]
    assert alone[0] != generator.complete(prompts[0], Sampling(max_new_tokens=16, seed=12)).token_ids
    greedy = Sampling(max_new_tokens=16, **GREEDY)
    together = [completion.token_ids for completion in generator.complete_many(prompts, greedy)]
    assert together == [generator.complete(prompt, greedy).token_ids for prompt in prompts]


def test_stop_strings_and_lengths_end_an_answer(generator: Generator) -> None:
    prompt = generator.prompt_ids("The", chat=False)
    free = generator.complete(prompt, Sampling(max_new_tokens=40, **GREEDY)).text
    stop = free[5:8]
    cut = generator.complete(prompt, Sampling(max_new_tokens=40, stop=(stop,), **GREEDY))
    assert cut.finish_reason == "stop" and cut.text == free[: free.find(stop)]
    short = generator.complete(prompt, Sampling(max_new_tokens=3, **GREEDY))
    assert short.finish_reason == "length" and len(short.token_ids) == 3


def test_what_is_cancelled_between_two_pieces_ends_there(generator: Generator) -> None:
    ticket = generator.submit([5, 6, 7], Sampling(max_new_tokens=40, ignore_eos=True, **GREEDY))
    pieces = generator.follow(ticket)
    next(pieces)
    generator.cancel(ticket)
    assert list(pieces) == [] and not generator.has_work


def test_half_a_character_at_the_limit_may_complete_a_stop_string(generator: Generator) -> None:
    half = generator.tokenizer.encode_inside("☃")[0]
    assert generator.tokenizer.token_bytes(half) == "☃".encode()[:1]
    answer = Answer(generator.tokenizer, Sampling(stop=("\ufffd",)), 5, 1)
    piece = answer.add(Choice(half, None, [], None))
    assert (piece.text, piece.finish_reason) == ("", "stop")


def test_prompts_that_do_not_fit_are_refused_with_the_numbers(generator: Generator) -> None:
    with pytest.raises(UserError, match=r"512 tokens, and there is room for 512"):
        next(generator.stream([5] * 512, Sampling()))
    with pytest.raises(UserError, match="empty"):
        next(generator.stream([], Sampling()))
    nearly = generator.complete([5] * 510, Sampling(max_new_tokens=50, **GREEDY))
    assert len(nearly.token_ids) <= 2


def test_the_verb_has_the_keys_that_others_script_against(model: Path) -> None:
    settings: dict[str, Any] = {"max_new_tokens": 5, "temperature": 0, "threads": 1}
    data = verbs.generate(model=str(model), prompt="The", **settings)
    assert set(data) >= {"text", "token_ids", "finish_reason"}
    assert json.loads(json.dumps(data)) == data
    chat = verbs.generate(model=str(model), prompt="The", chat=True, system="Be brief.", **settings)
    assert chat["prompt_tokens"] > data["prompt_tokens"]
    with pytest.raises(UserError, match="--chat"):
        verbs.generate(model=str(model), prompt="The", system="Be brief.", **settings)


def test_a_chat_that_is_piped_prints_its_result_alone(model: Path) -> None:
    def chat(*flags: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bottega", "chat", str(model), "--max-new-tokens", "4", "--temperature", "0"]
        talk = "The bread is\n/undo\nThe bread is\n/quit\n"
        return subprocess.run([*command, *flags], input=talk, capture_output=True, text=True, timeout=60, check=True)

    run = chat("--json")
    question, answer = json.loads(run.stdout)["messages"]
    assert question == {"role": "user", "content": "The bread is"}
    assert run.stderr.count(answer["content"].strip()) >= 2
    assert chat().stdout.strip() == answer["content"].strip() != ""


def test_our_folder_opens_in_transformers_with_the_same_logits(workshop: Workshop, tmp_path: Path) -> None:
    verbs.train(
        data=workshop.tokens, tokenizer=workshop.tokenizer, out=tmp_path / "model", layers=2, hidden_size=64,
        row_length=64, tokens_per_step=256, tokens=1024, threads=1,
    )  # fmt: skip
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model" / "model", dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model" / "model")
    ours = Generator.load(tmp_path / "model", dtype="float32", threads=1)
    text = "The lantern opens the garden. Überall ☃ 12345"
    ids = ours.prompt_ids(text, chat=False)
    assert ids == tokenizer(text)["input_ids"]
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits
        got = ours.decoder(torch.tensor([ids]))
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
    messages = [{"role": "user", "content": "What does the section say?"}]
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert (
        ours.prompt_ids(messages[0]["content"], chat=True) == tokenizer(rendered, add_special_tokens=False)["input_ids"]
    )
