"""The travelling model: one Llama of about 105,000 parameters that goes through the chapters.

It is new in the chapter on architecture, pre-trained in the chapter on pre-training, fine-tuned and aligned after
that, and evaluated. It reads the stories of `world`, word by word, and is an ordinary Hugging Face folder: `bottega
generate`, transformers and everybody else open it. Every stage is made by the toolchain's own `train`, once, and kept.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from bottega.core.atomic import begin_folder, building, finish_folder, write_json, write_text
from bottega.core.hashing import digest_data
from bottega.core.progress import Reporter
from bottega.core.workspace import workspace_path
from bottega.course import world
from bottega.course.toolchain import run_verb

Kind = Literal["new", "small", "pretrained", "fine-tuned", "aligned"]
MODEL: Mapping[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16, "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}  # fmt: skip
CONTEXT = 256
# What each stage trains on; the seeds of what it is measured on are others.
STORIES, HELDOUT = 20_000, 300
HELDOUT_SEED = 10_000
TEMPLATE = (
    "{{ '<|story|> ' }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<|user|> ' + message['content'] + ' ' }}"
    "{% elif message['role'] == 'assistant' %}{{ '<|assistant|> ' + message['content'] + ' <|end|> ' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|> ' }}{% endif %}"
)
TRAINING: Mapping[Kind, Mapping[str, Any]] = {
    "small": {"stage": "pretrain", "max_steps": 300, "tokens_per_step": 1024, "row_length": CONTEXT,
              "learning_rate": 6e-3, "optimizer": "muon"},
    "pretrained": {"stage": "pretrain", "max_steps": 1500, "tokens_per_step": 1024, "row_length": CONTEXT,
                   "learning_rate": 6e-3, "optimizer": "muon"},
    "fine-tuned": {"stage": "sft", "max_steps": 600, "batch_size": 16, "row_length": CONTEXT, "learning_rate": 3e-3,
                   "optimizer": "muon", "compare": False},
    "aligned": {"stage": "dpo", "max_steps": 60, "batch_size": 16, "row_length": CONTEXT, "learning_rate": 3e-4,
                "optimizer": "adamw", "compare": False, "preference": {"beta": 0.1, "nll_weight": 1.0}},
}  # fmt: skip
START: Mapping[Kind, Kind] = {"small": "new", "pretrained": "new", "fine-tuned": "pretrained", "aligned": "fine-tuned"}
VERSION = 2
# Settings of `bottega.generate` for a story: pre-training has no stop token, a story ends with its last sentence.
STORY: Mapping[str, Any] = {"max_new_tokens": 90, "stop": ("the end .",), "include_stop_str": True}


def companion(kind: Kind = "pretrained", folder: Path | None = None, reporter: Reporter | None = None) -> Path:
    """The model folder of a stage; it is made, with those before it, if it is not there yet.

    Args:
        kind: how far it has come: new, small (300 steps), pretrained, fine-tuned (it answers questions), aligned.
        folder: where the stages are kept (default: the workspace's course/models).
        reporter: told of long work.
    """
    folder = folder or workspace_path() / "course" / "models"
    out = folder / f"{kind}-{_recipe_hash(kind)}"
    made = out if kind == "new" else out / "model"
    if (made / "config.json").is_file():
        return made
    if kind == "new":
        with building(out) as unfinished:
            begin_folder(unfinished, out.name, restartable=False)
            new_model(unfinished)
            finish_folder(unfinished, out)
        return made
    start = companion(START[kind], folder, reporter)
    data = training_data(kind, folder)
    if reporter is not None:
        reporter.say(f"Making the {kind} model of the course, once")
    run_verb("train", {**training(kind), "model": str(start), "data": str(data), "out": str(out)}, reporter)
    return made


def training(kind: Kind) -> dict[str, Any]:
    """The settings of a stage's run. One thread and float32, so that every machine makes nearly the same model."""
    return {**TRAINING[kind], "threads": 1, "dtype": "float32"}


def training_data(kind: Kind, folder: Path) -> Path:
    """The file that a stage trains on, written if it is not there yet."""
    makers: Mapping[Kind, Callable[[], Iterable[dict[str, Any]]]] = {
        "small": partial(story_rows, 0, STORIES), "pretrained": partial(story_rows, 0, STORIES),
        "fine-tuned": partial(question_rows, 1, 6_000), "aligned": partial(pair_rows, 2, 1_000),
    }  # fmt: skip
    name = {"small": "stories", "pretrained": "stories", "fine-tuned": "questions", "aligned": "pairs"}[kind]
    path = folder / f"{name}-{VERSION}.jsonl"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_rows(path, makers[kind]())
    return path


def story_rows(seed: int, count: int) -> Iterable[dict[str, Any]]:
    """Stories as documents."""
    return ({"text": story.text} for story in world.stories(seed, count))


def question_rows(seed: int, count: int) -> Iterable[dict[str, Any]]:
    """Conversations: a story with a question about it, and the answer of one word."""
    draw = random.Random(seed)
    for story in world.stories(seed + 100, count):
        question, answer = draw.choice(world.questions(story))
        asked = {"role": "user", "content": f"{story.text} {question}"}
        yield {"messages": [asked, {"role": "assistant", "content": f"{answer} ."}]}


def pair_rows(seed: int, count: int) -> Iterable[dict[str, Any]]:
    """Preferences between two answers to a question about a story: the right one, and another of the same class."""
    draw = random.Random(seed)
    for story in world.stories(seed + 200, count):
        question, answer = draw.choice(world.questions(story))
        classes = world.word_classes()
        wrong = draw.choice([word for word in world.CHOICES[classes[answer]] if word != answer])
        prompt = [{"role": "user", "content": f"{story.text} {question}"}]
        chosen, rejected = ([{"role": "assistant", "content": f"{each} ."}] for each in (answer, wrong))
        yield {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows as JSON lines; the file appears when it is complete."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    return path


def new_model(folder: Path, seed: int = 0, **changes: Any) -> None:
    """Write the model before its first step: config, tokenizer, random weights. `changes` replace parts of MODEL."""
    import torch

    from bottega.checkpoint.config import ModelConfig
    from bottega.checkpoint.writer import write_model_files, write_tensors
    from bottega.model.decoder import Decoder

    words = [*world.SPECIAL, *world.vocabulary()]
    ids = {"bos_token_id": words.index("<|story|>"), "eos_token_id": words.index(world.END), "pad_token_id": 0}
    config = ModelConfig.from_data({**MODEL, **ids, "vocab_size": len(words), **changes})
    decoder = Decoder(config).initialise(torch.Generator().manual_seed(seed))
    write_tensors(folder, dict(decoder.state_dict()))
    write_model_files(folder, config)
    write_tokenizer(folder)


def write_tokenizer(folder: Path) -> None:
    """Write the word-level tokenizer of the world: a token is a word, and spaces separate them."""
    words = [*world.SPECIAL, *world.vocabulary()]
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    marks = [{"id": i, "content": word, "special": True, **plain} for i, word in enumerate(world.SPECIAL)]
    begin = words.index("<|story|>")
    text, mark = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<|story|>", "type_id": 0}}
    write_json(folder / "tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": marks, "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "decoder": None,
        "post_processor": {
            "type": "TemplateProcessing", "single": [mark, text], "pair": [mark, text],
            "special_tokens": {"<|story|>": {"id": "<|story|>", "ids": [begin], "tokens": ["<|story|>"]}},
        },
        "model": {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(words)}, "unk_token": "<|pad|>"},
    })  # fmt: skip
    special = {"bos_token": "<|story|>", "eos_token": world.END, "pad_token": "<|pad|>", "unk_token": "<|pad|>"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE, "model_max_length": CONTEXT}
    write_json(folder / "tokenizer_config.json", {**config, **special})


def _recipe_hash(kind: Kind) -> str:
    """What determines the weights of a stage: all settings up to it, and the world."""
    chain: list[Any] = [VERSION, dict(MODEL), TEMPLATE, world.vocabulary(), world.BRANCHES, dict(world.CHOICES)]
    current: Kind = kind
    while current != "new":
        chain.append([current, TRAINING[current]])
        current = START[current]
    return digest_data(chain)[:12]
