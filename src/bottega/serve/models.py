"""The models of a server: known by name from their headers, loaded when asked for, unloaded when room is needed.

A model's adapters are models of their own to clients (`name` or `base:name`), and share its weights, its
engine and its batches.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bottega.checkpoint.hub import locate
from bottega.checkpoint.spec import ModelSpec
from bottega.core.errors import BottegaError, UserError
from bottega.serve.config import Serve
from bottega.serve.failures import ApiError, going_down, server_error
from bottega.serve.metrics import COUNTERS, Metrics
from bottega.serve.protocol.tokens import ModelCard, ModelFacts

if TYPE_CHECKING:
    from bottega.generate.generator import Generator
    from bottega.serve.engine import Engine, Job
    from bottega.serve.prompts import Prompts

Load = Callable[["Source"], "Generator"]


@dataclass(frozen=True)
class Source:
    """A model as the settings name it. `adapters`: name → folder."""

    name: str
    path: Path
    adapters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Served:
    """A loaded model, and the adapter that the request's `model` names."""

    name: str
    engine: Engine
    prompts: Prompts
    adapter: str | None


@dataclass(frozen=True)
class Known:
    """A model by the name that clients use, `parent` that of its base if it is an adapter.

    `expires` is the time (in seconds since 1970) at which it is unloaded if nobody asks for it; None: it stays.
    """

    name: str
    parent: str | None
    path: Path
    spec: ModelSpec
    context_length: int
    is_loaded: bool
    on_gpu: bool
    expires: float | None


@dataclass
class _Entry:
    source: Source
    spec: ModelSpec
    created: int
    engine: Engine | None = None
    prompts: Prompts | None = None
    users: int = 0
    used: int = 0
    past: Counter[str] = field(default_factory=Counter)
    keep: float | None = None
    timer: asyncio.TimerHandle | None = None
    expires: float | None = None

    @property
    def context_length(self) -> int:
        return self.prompts.context_length if self.prompts is not None else self.spec.config.context_length

    @property
    def is_idle(self) -> bool:
        return self.users == 0 and (self.engine is None or self.engine.live == 0)


# As `model.inference` keeps them: whole numbers with a scale to 32; what is neither of these in float32.
BYTES_PER_WEIGHT = {"bfloat16": 2, "int8": 1 + 1 / 16, "int4": 1 / 2 + 1 / 16, "float32": 4, "float16": 4, "float64": 4}


def sources_of(config: Serve) -> list[Source]:
    """The models and adapters of the settings; raises UserError for names that clash or belong nowhere."""
    models = [_named(text) for text in config.model]
    if config.name is not None:
        if len(models) > 1:
            raise UserError("name: there are several models", hint="Write --name only with one, else NAME=FOLDER.")
        models = [(config.name, models[0][1])]
    names = [name or model_name(place) for name, place in models]
    taken, adapters = list(names), {name: dict[str, str]() for name in names}
    for text in config.adapter:
        base, _, rest = text.partition(":") if text.partition(":")[0] in names else ("", "", text)
        if not base and len(names) > 1:
            raise UserError(f"adapter: to which model does {text} belong?", hint=f"Write {names[0]}:{text}, say.")
        name, place = _named(rest)
        taken.append(name or model_name(place))
        adapters[base or names[0]][taken[-1]] = str(locate(place))
    if twice := sorted(name for name, count in Counter(taken).items() if count > 1):
        raise UserError(f"model, adapter: the name {twice[0]!r} is given twice", hint="Name one of them: NAME=FOLDER.")
    return [Source(name, locate(place), adapters[name]) for name, (_, place) in zip(names, models, strict=True)]


def _named(text: str) -> tuple[str, str]:
    """NAME=FOLDER → both; FOLDER → ("", FOLDER)."""
    name, separator, place = text.partition("=")
    return (name, place) if separator and name and place and not Path(text).exists() else ("", text)


def model_name(model: str) -> str:
    """By what name clients ask for a model: the folder's last part, or the hub's org/name."""
    path = Path(model)
    return path.resolve().name if path.exists() else model


class Models:
    """All models of a server; use on one event loop. `load` makes the generator of a source, in a thread."""

    def __init__(self, sources: Sequence[Source], specs: Sequence[ModelSpec], config: Serve, load: Load) -> None:
        self.metrics = Metrics()
        self._config, self._load = config, load
        self._entries = {
            source.name: _Entry(source, spec, int(time.time())) for source, spec in zip(sources, specs, strict=True)
        }
        self._clock = itertools.count(1)
        self._loading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refusal: ApiError | None = None

    @property
    def engines(self) -> list[Engine]:
        """Those of the loaded models."""
        return [entry.engine for entry in self._entries.values() if entry.engine is not None]

    @property
    def is_closing(self) -> bool:
        """Whether the server is going down."""
        return self._refusal is not None

    @property
    def is_well(self) -> bool:
        """Whether no engine has died."""
        return not any(engine.has_died for engine in self.engines)

    def known(self) -> list[Known]:
        """Every model, each followed by its adapters."""
        found = []
        for entry in self._entries.values():
            on_gpu = entry.engine is not None and entry.engine.generator.decoder.device.type != "cpu"
            facts = (entry.spec, entry.context_length, entry.engine is not None, on_gpu, entry.expires)
            base = entry.source.name
            found.append(Known(base, None, entry.source.path, *facts))
            found += [Known(name, base, Path(path), *facts) for name, path in entry.source.adapters.items()]
        return found

    def keep(self, name: str, seconds: float | None) -> None:
        """Unload the model once nobody has used it for so long; None: only when room is needed. ApiError 404."""
        entry, _ = self._find(name)
        entry.keep = seconds
        self._rest(entry)

    def cards(self) -> list[ModelCard]:
        """Every model, each followed by its adapters."""
        return [card for entry in self._entries.values() for card in self._cards(entry)]

    def _cards(self, entry: _Entry) -> list[ModelCard]:
        config = entry.spec.config
        facts = ModelFacts(
            parameters=config.parameter_count(),
            weight_bytes=config.active_parameter_count() * BYTES_PER_WEIGHT[self._config.weights or config.dtype],
            context_length=entry.context_length,
            vocab_size=config.vocab_size,
            num_hidden_layers=config.num_hidden_layers,
            hidden_size=config.hidden_size,
            model_type=config.model_type,
            has_chat_template=entry.spec.template is not None,
            loaded=entry.engine is not None,
        )
        base = entry.source.name
        return [
            ModelCard(id=base, created=entry.created, bottega=facts),
            *(ModelCard(id=name, created=entry.created, parent=base, bottega=facts) for name in entry.source.adapters),
        ]

    def card(self, name: str) -> ModelCard:
        """That of one model; raises ApiError 404."""
        entry, adapter = self._find(name)
        wanted = adapter or entry.source.name
        return next(card for card in self._cards(entry) if card.id == wanted)

    def statistics(self) -> dict[str, Counter[str]]:
        """The generators' statistics by model; what is counted goes on when a model is loaded again."""
        found = {}
        for name, entry in self._entries.items():
            found[name] = Counter(entry.past)
            if entry.engine is not None:
                found[name].update(entry.engine.statistics)
                found[name]["running"], found[name]["waiting"] = entry.engine.running, entry.engine.waiting
        return found

    @contextlib.asynccontextmanager
    async def using(self, name: str | None) -> AsyncIterator[Served]:
        """The model of that name, loaded, and kept so inside; afterwards as long as its engine has work.

        Raises ApiError: 404 for an unknown name, 503 where no room can be made, 500 where it cannot be loaded.
        """
        entry, adapter = self._find(name)
        entry.users += 1
        try:
            entry.used = next(self._clock)
            if entry.engine is None or entry.prompts is None:
                await self._ensure(entry)
            assert entry.engine is not None and entry.prompts is not None
            yield Served(adapter or entry.source.name, entry.engine, entry.prompts, adapter)
        finally:
            entry.users -= 1
            self._rest(entry)

    def adopt(self, generator: Generator) -> None:
        """Take `generator` as that of the first model."""
        self._start(next(iter(self._entries.values())), generator)

    async def drain(self, seconds: float, is_hurried: Callable[[], bool] = lambda: False) -> None:
        """Take no more work, and wait until what is under way has ended: at most `seconds`, or until hurried."""
        self._refusal = going_down()
        for engine in self.engines:
            engine.close(self._refusal)
        end = time.monotonic() + seconds
        while any(engine.live for engine in self.engines) and time.monotonic() < end and not is_hurried():
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """End all engines; what is under way ends with status 503."""
        await asyncio.gather(*(engine.stop() for engine in self.engines))

    def _rest(self, entry: _Entry) -> None:
        """Begin to count the time in which the model is not used, if it is not."""
        if entry.timer is not None:
            entry.timer.cancel()
        entry.timer, entry.expires = None, None
        if entry.keep is None or entry.engine is None or not entry.is_idle:
            return
        loop = asyncio.get_running_loop()
        entry.timer = loop.call_later(entry.keep, self._start_expiring, entry)
        entry.expires = time.time() + entry.keep

    def _start_expiring(self, entry: _Entry) -> None:
        task = asyncio.get_running_loop().create_task(self._expire(entry))
        self._tasks.add(task)  # the loop itself keeps only a weak reference
        task.add_done_callback(self._tasks.discard)

    async def _expire(self, entry: _Entry) -> None:
        async with self._loading:
            if entry.engine is not None and entry.is_idle and entry.keep is not None:
                await self._unload(entry)

    def _ended(self, entry: _Entry, job: Job) -> None:
        self.metrics.ended(entry.source.name, job)
        self._rest(entry)

    def _find(self, name: str | None) -> tuple[_Entry, str | None]:
        if name is None:
            if len(self._entries) > 1:
                raise ApiError(400, "Which model? There are several.", param="model", code="missing_required_parameter")
            return next(iter(self._entries.values())), None
        base, _, rest = name.partition(":")
        for entry in self._entries.values():
            if name == entry.source.name:
                return entry, None
            if name in entry.source.adapters:
                return entry, name
            if base == entry.source.name and rest in entry.source.adapters:
                return entry, rest
        known = ", ".join(repr(card.id) for card in self.cards())
        message = f"The model {name!r} is not served here; this server has {known}."
        raise ApiError(404, message, param="model", code="model_not_found")

    async def _ensure(self, entry: _Entry) -> None:
        async with self._loading:
            if entry.engine is not None:
                return
            if self._refusal is not None:
                raise self._refusal
            await self._make_room(entry)
            try:
                generator = await asyncio.to_thread(self._load, entry.source)
            except BottegaError as error:
                print(f"{entry.source.name} cannot be loaded: {error}", file=sys.stderr, flush=True)
                message = f"The model {entry.source.name!r} cannot be loaded; the server's log says why."
                raise server_error(message) from None
            self._start(entry, generator)

    async def _make_room(self, wanted: _Entry) -> None:
        limit = self._config.max_loaded or len(self._entries)
        loaded = [entry for entry in self._entries.values() if entry.engine is not None]
        while len(loaded) >= limit:
            idle = [entry for entry in loaded if entry.is_idle]
            if not idle:
                raise ApiError(
                    503,
                    f"{wanted.source.name!r} is not loaded, and all {limit} models that may be are answering. "
                    "Try again later.",
                    kind="server_error",
                    code="model_busy",
                    headers={"Retry-After": "1"},
                )
            oldest = min(idle, key=lambda entry: entry.used)
            loaded.remove(oldest)
            await self._unload(oldest)

    async def _unload(self, entry: _Entry) -> None:
        engine, entry.engine, entry.prompts, entry.expires = entry.engine, None, None, None
        assert engine is not None
        entry.past.update({name: engine.statistics.get(name, 0) for name in COUNTERS})
        await engine.stop()
        del engine
        gc.collect()

    def _start(self, entry: _Entry, generator: Generator) -> None:
        from bottega.serve.engine import Engine
        from bottega.serve.prompts import Prompts

        entry.prompts = Prompts(generator)
        entry.engine = Engine(
            generator,
            capacity=self._config.max_batch + self._config.max_queue,
            timeout=self._config.timeout,
            ended=partial(self._ended, entry),
        )
        entry.engine.start()
