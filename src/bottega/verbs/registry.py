"""Every verb, by name. The command line, the Python API, recipes and pages read this table.

Parts are named as text and loaded when needed, so `bottega --help` imports neither torch nor pydantic.
"""

from __future__ import annotations

from bottega.core.verb import Verb

_ALL = (
    Verb(
        "data collect",
        "Read documents; split, deduplicate, derive conversations and questions.",
        config="bottega.data.config:CollectData",
        plan="bottega.data.collect:plan_collect",
        run="bottega.data.collect:run_collect",
        report="bottega.verbs.reports:corpus",
    ),
    Verb(
        "data prepare",
        "Turn text or conversations into memory-mapped tokens.",
        config="bottega.data.config:PrepareData",
        plan="bottega.data.prepare:plan_prepare",
        run="bottega.data.prepare:run_prepare",
    ),
    Verb(
        "tokenizer train",
        "Train a byte-level BPE tokenizer.",
        config="bottega.tokenizer.config:TrainTokenizer",
        plan="bottega.tokenizer.train_verb:plan_train",
        run="bottega.tokenizer.train_verb:run_train",
        report="bottega.verbs.reports:tokenizer",
    ),
    Verb(
        "tokenizer inspect",
        "Show a text or a conversation as tokens, with the loss mask.",
        config="bottega.tokenizer.config:InspectTokenizer",
        plan="bottega.tokenizer.inspect_verb:plan_inspect",
        run="bottega.tokenizer.inspect_verb:run_inspect",
        arguments=("tokenizer", "text"),
    ),
    Verb(
        "tokenizer convert",
        "Make a tokenizer folder of a vocabulary in another format.",
        config="bottega.tokenizer.config:ConvertTokenizer",
        plan="bottega.tokenizer.convert_verb:plan_convert",
        run="bottega.tokenizer.convert_verb:run_convert",
        arguments=("source",),
    ),
    Verb(
        "tokenizer stats",
        "Statistics of a vocabulary, and the tokens it needs for texts.",
        config="bottega.tokenizer.config:TokenizerStats",
        plan="bottega.tokenizer.stats_verb:plan_stats",
        run="bottega.tokenizer.stats_verb:run_stats",
        arguments=("tokenizer",),
    ),
    Verb(
        "train",
        "Pre-train a model, or fine-tune one.",
        config="bottega.train.config:Train",
        plan="bottega.train.plan:plan_train",
        run="bottega.train.run:run_train",
        report="bottega.verbs.reports:training",
        restartable=True,
    ),
    Verb(
        "show",
        "What a model is: parameters, memory, cache, tokens, licence, parents.",
        config="bottega.checkpoint.show:ShowModel",
        plan="bottega.checkpoint.show:plan_show",
        run="bottega.checkpoint.show:run_show",
        arguments=("model",),
    ),
    Verb(
        "generate",
        "Continue a prompt.",
        config="bottega.generate.config:Generate",
        plan="bottega.generate.verb:plan_generate",
        run="bottega.generate.verb:run_generate",
        arguments=("model",),
    ),
    Verb(
        "chat",
        "Talk to a model in the terminal.",
        config="bottega.generate.config:Chat",
        plan="bottega.generate.chat:plan_chat",
        run="bottega.generate.chat:run_chat",
        arguments=("model",),
        step=False,
    ),
    Verb(
        "eval",
        "Measure a model: bits per byte, multiple choice, or against another model.",
        config="bottega.evaluate.config:EvaluateModel",
        plan="bottega.evaluate.plan:plan_evaluate",
        run="bottega.evaluate.run:run_evaluate",
        report="bottega.verbs.reports:evaluation",
        arguments=("model",),
    ),
    Verb(
        "serve",
        "Serve a model over OpenAI's API.",
        config="bottega.serve.config:Serve",
        plan="bottega.serve.command:plan_serve",
        run="bottega.serve.command:run_serve",
        arguments=("model",),
        step=False,
    ),
    Verb(
        "web",
        "Open the chat page (and the API behind it).",
        config="bottega.web.config:Web",
        plan="bottega.web.command:plan_web",
        run="bottega.web.command:run_web",
        arguments=("model",),
        step=False,
    ),
    Verb(
        "doctor",
        "What this machine can do.",
        config="bottega.core.doctor:Doctor",
        plan="bottega.core.doctor:plan_doctor",
        run="bottega.core.doctor:run_doctor",
        step=False,
    ),
)

VERBS: dict[str, Verb] = {verb.name: verb for verb in _ALL}
