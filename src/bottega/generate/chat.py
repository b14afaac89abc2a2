"""The verb `chat`: a conversation in the terminal, streaming.

Where standard output is no terminal, it carries the result alone (the answers, or the JSON of
`--json`), and the talk goes to standard error.
"""

from __future__ import annotations

import sys
import time

from bottega.core.errors import UserError
from bottega.core.plan import Plan
from bottega.core.verb import Context, Result
from bottega.core.view import Block, Text
from bottega.generate.config import Chat
from bottega.generate.generator import Generator
from bottega.generate.sampling import Sampling
from bottega.generate.verb import plan_generate, sampling_of
from bottega.tokenizer.chat import encode_chat

PROMPT = "\n› "
HELP = "/new starts over · /undo takes the last question back · /quit or Ctrl-D ends · Ctrl-C stops an answer"

plan_chat = plan_generate


def run_chat(plan: Plan, context: Context) -> Result:
    """Read questions from the terminal until it ends; returns the conversation."""
    config = plan.config
    assert isinstance(config, Chat)
    generator = Generator.of(config)
    if generator.precision_note:
        context.reporter.say(generator.precision_note)
    context.reporter.say(HELP)
    system = [{"role": "system", "content": config.system}] if config.system else []
    messages = list(system)
    while (question := _read()) is not None:
        if question == "/quit":
            break
        if question == "/new":
            messages = list(system)
        elif question == "/undo":
            messages = messages[: max(len(system), len(messages) - 2)]
        elif question.startswith("/"):
            context.reporter.say(HELP)
        elif question:
            messages.append({"role": "user", "content": question})
            try:
                answer = _answer(generator, messages, sampling_of(config, generator.tokenizer), context)
            except UserError as error:  # too long, say: the question is taken back and the chat goes on
                context.reporter.say(str(error))
                messages.pop()
                continue
            messages.append({"role": "assistant", "content": answer})
    answers: list[Block] = [Text(message["content"]) for message in messages if message["role"] == "assistant"]
    return Result({"messages": messages}, [] if sys.stdout.isatty() else answers)


def _talk(text: str) -> None:
    """Show a piece of the conversation."""
    stream = sys.stdout if sys.stdout.isatty() else sys.stderr
    stream.write(text)
    stream.flush()


def _read() -> str | None:
    """The next line; None at the end of the input."""
    try:
        if sys.stdout.isatty():
            return input(PROMPT).strip()  # by input(), or editing the line would erase it
        _talk(PROMPT)
        return input().strip()
    except (EOFError, KeyboardInterrupt):
        _talk("\n")
        return None


def _answer(generator: Generator, messages: list[dict[str, str]], sampling: Sampling, context: Context) -> str:
    """Print the answer as it comes; Ctrl-C ends it early and keeps what was said."""
    ids = encode_chat(generator.tokenizer, messages, add_generation_prompt=True).ids
    said, count, started = [], 0, time.perf_counter()
    try:
        for piece in generator.stream(ids, sampling):
            said.append(piece.text)
            count += 1
            _talk(piece.text)
    except KeyboardInterrupt:
        context.reporter.say(" (stopped)")
    rate = count / max(time.perf_counter() - started, 1e-9)
    _talk("\n")
    context.reporter.say(f"{len(ids)} + {count} tokens · {rate:.0f} tok/s")
    return "".join(said)
