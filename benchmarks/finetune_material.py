"""What fine-tuning is measured on: random models of many sizes, a tokenizer, and made-up conversations and pairs.

Lengths of examples are log-normal, as those of real collections are; words are as frequent as their rank says, and a
common word is one token.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bottega.checkpoint.config import ModelConfig

MEDIAN_TOKENS, SPREAD = 110, 0.8  # of an example: 150 on average
TEMPLATE_TOKENS = 10  # about so many of an example are its template's
PAIR = ("chosen", "rejected")
# ChatML, but for the line feed behind the last answer.
TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['role'] == 'assistant' -%}
{%- generation -%}{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}
{%- else -%}{{- message['content'] + '<|im_end|>' -}}{%- endif -%}
{%- if message['role'] != 'assistant' or not loop.last -%}{{- '\\n' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


@dataclass(frozen=True)
class Shape:
    """A Llama's sizes; heads have `head` channels."""

    layers: int
    hidden: int
    intermediate: int
    vocab: int
    kv_heads: int
    head: int = 64
    tied: bool = True

    def config(self, dtype: str, context: int) -> ModelConfig:
        """The architecture."""
        from bottega.tokenizer import training

        return ModelConfig(
            vocab_size=self.vocab, hidden_size=self.hidden, intermediate_size=self.intermediate,
            num_hidden_layers=self.layers, num_attention_heads=self.hidden // self.head,
            num_key_value_heads=self.kv_heads, head_dim=self.head, max_position_embeddings=context, rms_norm_eps=1e-5,
            rope_theta=10000.0, tie_word_embeddings=self.tied, initializer_range=0.02, dtype=dtype,
            bos_token_id=training.BOS_ID, eos_token_id=(training.EOS_ID,), pad_token_id=training.PAD_ID,
        )  # fmt: skip


def write_model(folder: Path, shape: Shape, *, dtype: str = "float32", context: int = 1024) -> ModelConfig:
    """A model folder with random weights, written tensor by tensor, and a tokenizer that knows the words."""
    import torch

    from bottega.checkpoint.writer import MAX_SHARD_BYTES, TensorInfo, TensorWriter, write_model_files
    from bottega.model.decoder import Decoder
    from bottega.tokenizer import training
    from bottega.train.state import weights_of

    config = shape.config(dtype, context)
    folder.mkdir(parents=True)
    with torch.device("meta"):
        declared = {name: tuple(tensor.shape) for name, tensor in weights_of(Decoder(config)).items()}
    generator = torch.Generator().manual_seed(0)
    kinds = {name: TensorInfo(size, dtype) for name, size in declared.items()}
    with TensorWriter(folder, kinds, max_shard_bytes=MAX_SHARD_BYTES) as writer:
        for name, size in declared.items():
            tensor = torch.empty(size, dtype=getattr(torch, dtype))
            writer.add(name, tensor.fill_(1.0) if len(size) == 1 else tensor.normal_(0, 0.02, generator=generator))
    write_model_files(folder, config)
    words = Words(random.Random(0))
    training.write_folder(training.train((words.text(200) for _ in range(400)), 6000), folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    return config


class Words:
    """Made-up words; the common ones are as common as in a language."""

    def __init__(self, source: random.Random) -> None:
        syllables = [first + vowel for first in "bdfgklmnprstvz" for vowel in "aeiou"]
        names = random.Random("words")
        self._words = ["".join(names.choices(syllables, k=names.randint(1, 4))) for _ in range(3000)]
        self._weights = [1 / (rank + 3) for rank in range(len(self._words))]
        self._source = source

    def text(self, words: float) -> str:
        """So many of them; one at least."""
        return " ".join(self._source.choices(self._words, self._weights, k=max(1, round(words))))


def write_examples(path: Path, folder: Path, stage: str, count: int, row_length: int) -> dict[str, Any]:
    """`count` conversations (sft) or pairs (dpo) as lines of `path`, none longer than `row_length` tokens.

    Returns `data` (the path), `lengths` (tokens of each example), `documents` (of each of its documents) and
    `trained_share` (of all tokens), as the tokenizer and template in `folder` make them.
    """
    from bottega.tokenizer.tokenizer import Tokenizer

    source, tokenizer = random.Random(stage), Tokenizer.load(folder)
    words, lengths, documents, trained = Words(source), list[int](), list[int](), 0
    with path.open("w", encoding="utf-8") as file:
        while len(lengths) < count:
            row = (_conversation if stage == "sft" else _pair)(source, words, row_length)
            conversations = [row["messages"]] if stage == "sft" else [row["prompt"] + row[key] for key in PAIR]
            sizes = [len(tokenizer.encode_markup(_chatml(each))) for each in conversations]
            if max(sizes) > row_length:  # nothing is ever cut
                continue
            file.write(json.dumps(row) + "\n")
            lengths.append(sum(sizes))
            documents += sizes
            said = [each["content"] for messages in conversations for each in messages if each["role"] == "assistant"]
            trained += sum(len(tokenizer.encode(text)) + 1 for text in said)
    share = trained / sum(documents)
    return {"data": str(path), "lengths": lengths, "documents": documents, "trained_share": share}


def _conversation(source: random.Random, words: Words, row_length: int) -> dict[str, Any]:
    left, messages = _tokens(source, row_length), list[dict[str, str]]()
    while left > 0 or not messages:
        turn = left if left < 80 else left * source.uniform(0.5, 1)
        messages += [_message("user", words, turn * 0.4), _message("assistant", words, turn * 0.6)]
        left -= max(turn, 8)
    return {"messages": messages}


def _pair(source: random.Random, words: Words, row_length: int) -> dict[str, Any]:
    length = _tokens(source, row_length)
    row = {"prompt": [_message("user", words, length * 0.4)]}
    return row | {key: [_message("assistant", words, length * 0.6 * source.uniform(0.7, 1.3))] for key in PAIR}


def _tokens(source: random.Random, row_length: int) -> float:
    wanted = MEDIAN_TOKENS * source.lognormvariate(0, SPREAD)
    return min(max(wanted, 16), row_length - 4 * TEMPLATE_TOKENS) - TEMPLATE_TOKENS


def _message(role: str, words: Words, tokens: float) -> dict[str, str]:
    return {"role": role, "content": words.text(tokens)}


def _chatml(messages: list[dict[str, str]]) -> str:
    """What TEMPLATE makes of a conversation that an answer ends."""
    return "\n".join(f"<|im_start|>{each['role']}\n{each['content']}<|im_end|>" for each in messages)


def flops_per_token(
    config: ModelConfig, *, seen: float, rank: int = 0, head_share: float = 1.0, reference: bool = False
) -> float:
    """Operations that training needs of one token at least, multiplications and additions counted apart.

    Args:
        config: the model.
        seen: tokens of the document that the average token is in (attention sees half of them).
        rank: of an adapter on all linear layers of a frozen model; 0 trains the model whole.
        head_share: share of the tokens whose logits are needed.
        reference: whether the frozen model looks at every token once more.
    """
    hidden, layers = config.hidden_size, config.num_hidden_layers
    embedding = config.vocab_size * hidden
    body = config.parameter_count() - embedding * (1 if config.tie_word_embeddings else 2)
    attended = config.num_attention_heads * config.head_dim
    attention = 2 * layers * attended * seen
    forward = 2 * (body + head_share * embedding) + attention
    if not rank:
        return 3 * forward
    keys = config.num_key_value_heads * config.head_dim
    sides = 2 * (hidden + attended) + 2 * (hidden + keys) + 3 * (hidden + config.intermediate_size)
    return 2 * forward + attention + 6 * rank * layers * sides + (forward if reference else 0)
