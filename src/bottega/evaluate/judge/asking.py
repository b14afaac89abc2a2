"""Who is asked: a model behind an endpoint, or a local one. Both are one function from conversations to replies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega.checkpoint.hub import locate
from bottega.clients.chat import ChatClient, Reply, find_model
from bottega.clients.endpoint import Endpoint, base_url, find_key
from bottega.core.errors import BottegaError, UserError
from bottega.core.hashing import NOT_CONTENT, digest_data, digest_path
from bottega.core.progress import Bar
from bottega.core.workspace import workspace_path
from bottega.evaluate.judge.calls import Call, Judgement
from bottega.evaluate.judge.config import KEY_VARIABLE, JudgeAnswers, is_url, parse_extra
from bottega.evaluate.judge.prompts import Messages
from bottega.evaluate.judge.store import Said, Store, key_of

if TYPE_CHECKING:  # the settings' room must not wait for torch when an endpoint judges
    from bottega.generate.generator import Generator, Ticket

AskAll = Callable[[Sequence[Messages]], Iterator[tuple[int, Reply | BottegaError]]]
"""(place, reply or why there is none) of each conversation, in the order in which they come."""


@dataclass(frozen=True)
class Judge:
    """Who judges: its name for people, what tells it from every other judge, and how it decodes."""

    name: str
    identity: str
    decoding: Mapping[str, Any]
    endpoint: Endpoint | None = None

    def key(self, call: Call) -> str:
        """The name under which its answer to a call is kept."""
        return key_of(call.messages, self.decoding)

    def store_path(self, config: JudgeAnswers) -> Path | None:
        """The file of what it said before."""
        if not config.reuse:
            return None
        return (config.store or workspace_path() / "judgements") / f"{self.identity[:32]}.jsonl"


def judge_of(config: JudgeAnswers) -> Judge:
    """The judge of the settings; asks an endpoint which model it has, if that is not said."""
    decoding: dict[str, Any] = {"max_tokens": config.max_tokens, "temperature": config.temperature}
    if not is_url(config.judge):
        digest = digest_path(locate(config.judge), NOT_CONTENT)
        decoding |= {"seed": config.seed} if config.temperature else {}
        return Judge(Path(config.judge).name, digest_data([digest, config.device, config.dtype]), decoding)
    extra = parse_extra(config.extra) if config.extra else {}
    endpoint = Endpoint(
        base_url(config.judge),
        config.judge_model or "",
        find_key(config.api_key, config.api_key_env, KEY_VARIABLE),
        timeout=config.timeout,
        retries=config.retries,
        extra=extra,
    )
    model = config.judge_model or find_model(endpoint)
    endpoint = replace(endpoint, model=model)
    return Judge(model, digest_data([endpoint.base, model]), decoding | {"extra": extra}, endpoint)


def judge_all(
    calls: Sequence[Call], judge: Judge, store: Store, ask_all: AskAll, bar: Bar
) -> tuple[list[Judgement], int]:
    """The judgement of each call, and how many the judge was asked for now; equal prompts are asked once.

    A call that fails has its cause; an error that concerns all is raised, and what was said before it is kept.
    """
    keys = [judge.key(call) for call in calls]
    said: dict[str, Said | BottegaError] = {key: found for key in keys if (found := store.get(key)) is not None}
    asked = {key: call.messages for key, call in zip(keys, calls, strict=True) if key not in said}
    waiting = list(asked)
    for place, reply in ask_all(list(asked.values())):
        key = waiting[place]
        said[key] = reply if isinstance(reply, BottegaError) else store.put(key, reply)
        bar.advance()
    return [_judgement(call, said[key]) for call, key in zip(calls, keys, strict=True)], len(asked)


def endpoint_judge(endpoint: Endpoint, config: JudgeAnswers) -> AskAll:
    """Ask an endpoint, several conversations at a time."""

    def ask_all(conversations: Sequence[Messages]) -> Iterator[tuple[int, Reply | BottegaError]]:
        with ChatClient(endpoint) as client:
            yield from client.ask_all(
                conversations,
                max_tokens=config.max_tokens,
                temperature=config.temperature,
                concurrency=config.concurrency,
            )

    return ask_all


def local_judge(config: JudgeAnswers) -> AskAll:
    """Ask a model folder through its chat template; it is loaded for the questions, and dropped behind them."""

    def ask_all(conversations: Sequence[Messages]) -> Iterator[tuple[int, Reply | BottegaError]]:
        if not conversations:
            return
        generator = judge_generator(config)
        try:
            yield from ask_generator(generator, conversations, config)
        finally:
            generator.close()

    return ask_all


def judge_generator(config: JudgeAnswers) -> Generator:
    """The model folder that judges, ready to be asked."""
    from bottega.generate.generator import Generator

    return Generator.load(
        config.judge,
        device=config.device,
        dtype=config.dtype,
        threads=config.threads,
        max_batch=config.concurrency,
    )


def ask_generator(
    generator: Generator, conversations: Sequence[Messages], config: JudgeAnswers
) -> Iterator[tuple[int, Reply | BottegaError]]:
    """Ask a model through its chat template; the engine runs what is under way together."""
    from bottega.generate.settings import Sampling
    from bottega.tokenizer.chat import encode_chat

    sampling = Sampling(max_new_tokens=config.max_tokens, temperature=config.temperature, seed=config.seed)
    places: dict[Ticket, int] = {}
    texts: dict[Ticket, list[str]] = {}
    for place, messages in enumerate(conversations):
        try:
            ids = encode_chat(generator.tokenizer, messages, add_generation_prompt=True).ids
            ticket = generator.submit(ids, sampling)
        except UserError as error:  # too long for the judge's context, say
            yield place, error
            continue
        places[ticket], texts[ticket] = place, []
    while generator.has_work:
        for ticket, piece in generator.step():
            if piece is not None:
                texts[ticket].append(piece.text)
            if ticket.has_ended:
                words = texts.pop(ticket)
                reason, prompt = str(ticket.finish_reason), ticket.request.prompt_length
                yield places[ticket], ticket.error or Reply("".join(words), reason, prompt, len(words))


def _judgement(call: Call, said: Said | BottegaError) -> Judgement:
    if isinstance(said, BottegaError):
        return Judgement(call, None, error=said.message)
    return Judgement(call, said.reply, said.time)
