"""Training a byte-level BPE tokenizer, and the folder that holds it.

Byte-level BPE (Sennrich et al. 2016, over bytes as in GPT-2): the 256 bytes are the first
tokens, so every text can be written and comes back byte for byte; no normaliser changes it.

Before merging, text is cut by the pattern of Qwen2 (GPT-4's, with single digits):
contractions, words with one leading character, single digits, runs of punctuation, line
ends, spaces. Digits stand alone because groups of up to three would spend up to 1,110
entries of a small vocabulary on numbers, and give a digit's place another token each time
a number grows. Keeping to a published pattern lets GGUF readers run it under its name
("qwen2").

Conventions of the tokenizers made here:

* `<|endoftext|>` (id 0) is BOS and padding: every document begins with it (`add_bos_token`).
* `<|im_end|>` (id 2) is EOS: it ends a turn of a conversation. Both stop generation.
* Conversations are ChatML and have no BOS: their template writes `<|im_start|>` first, so
  no pipeline can end up with two.
* Five reserved tokens (ids 3 to 7) can be given a meaning without moving the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, processors, trainers

from bottega.core.atomic import write_json, write_text
from bottega.tokenizer.foreign.patterns import QWEN2

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
RESERVED = tuple(f"<|reserved_{index}|>" for index in range(5))
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END, *RESERVED)
BOS_ID, EOS_ID, PAD_ID = 0, 2, 0
STOP_IDS = frozenset({BOS_ID, EOS_ID})
SMALLEST_VOCABULARY = len(SPECIAL_TOKENS) + 256
# What stands in tokenizer_config.json; the model's own limit is in its config.json.
NO_LENGTH_LIMIT = 10**9


def chat_template() -> str:
    """The ChatML template that trained tokenizers carry."""
    return resources.files("bottega.tokenizer").joinpath("templates/chatml.jinja").read_text("utf-8")


def train(texts: Iterator[str], vocab_size: int, *, min_frequency: int = 2) -> tokenizers.Tokenizer:
    """A byte-level BPE of at most `vocab_size` tokens, the special ones first.

    The same texts give the same tokenizer, whatever the number of threads. It is smaller than
    asked for when no pair of tokens occurs `min_frequency` times any more.
    """
    tokenizer = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(QWEN2), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END_OF_TEXT} $A", pair=f"{END_OF_TEXT} $A {END_OF_TEXT} $B", special_tokens=[(END_OF_TEXT, BOS_ID)]
    )
    return tokenizer


def write_folder(tokenizer: tokenizers.Tokenizer, folder: Path) -> None:
    """Write what `Tokenizer.load` and transformers' AutoTokenizer read."""
    template = chat_template()
    write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=False) + "\n")
    write_text(folder / "chat_template.jinja", template)
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": TURN_END,
        "pad_token": END_OF_TEXT,
        "add_bos_token": True,
        "add_eos_token": False,
        "additional_special_tokens": [TURN_START, *RESERVED],
        "clean_up_tokenization_spaces": False,
        "model_max_length": NO_LENGTH_LIMIT,
        "added_tokens_decoder": {
            str(index): {
                "content": token,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for index, token in enumerate(SPECIAL_TOKENS)
        },
        # Readers older than chat_template.jinja look for it here.
        "chat_template": template,
    }
    write_json(folder / "tokenizer_config.json", config)
    write_json(
        folder / "special_tokens_map.json",
        {
            "bos_token": END_OF_TEXT,
            "eos_token": TURN_END,
            "pad_token": END_OF_TEXT,
            "additional_special_tokens": [TURN_START, *RESERVED],
        },
    )
    write_json(
        folder / "generation_config.json",
        {"bos_token_id": BOS_ID, "eos_token_id": sorted(STOP_IDS, reverse=True), "pad_token_id": PAD_ID},
    )
