"""`bottega serve MODEL…`: plan (the models' headers, the port, who may come in), then serve until told to stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bottega.checkpoint.adapter_base import adapter_checks
from bottega.checkpoint.spec import ModelSpec
from bottega.core.errors import UserError
from bottega.core.machine import memory_check
from bottega.core.plan import Check, Cost, Plan, Specs
from bottega.core.progress import Lines, Reporter
from bottega.core.verb import Context, Result
from bottega.generate.checks import engine_checks, generation_memory
from bottega.generate.verb import PROMPT_TOKENS
from bottega.serve.access import access_check, keys_of, require_access
from bottega.serve.backends.programs import program_of
from bottega.serve.config import Serve
from bottega.serve.guard import is_loopback
from bottega.serve.listen import Server, base_url, make_server, open_socket, port_check
from bottega.serve.models import Models, Source, sources_of

if TYPE_CHECKING:
    from bottega.generate.generator import Generator


def plan_serve(config: Serve, specs: Specs) -> Plan:
    """Check the models from their headers, and that the port is free."""
    sources, checks = check_models(config, specs)
    first, *others = (f"{source.name} from {source.path}" for source in sources)
    return Plan(
        verb="serve",
        config=config,
        inputs={source.name: source.path for source in sources},
        checks=[*checks, engine_check(config, sources[0]), access_check(config), port_check(config.host, config.port)],
        work=[
            f"load {first}",
            *(f"load {other} when it is asked for" for other in others),
            f"answer OpenAI's API on http://{config.host}:{config.port}/v1 until stopped",
        ],
        cost=Cost(specs.of(sources[0].path, ModelSpec).nbytes, peak_memory=_memory(config, specs, sources)),
    )


def check_models(config: Serve, specs: Specs) -> tuple[list[Source], list[Check]]:
    """The models, and whether they can be served as far as their headers tell."""
    sources = sources_of(config)
    found = [specs.of(source.path, ModelSpec) for source in sources]
    checks = []
    for source, spec in zip(sources, found, strict=True):
        detail = f"{source.name} has one" if spec.has_tokenizer else f"{source.path} has none"
        checks.append(Check("tokenizer", spec.has_tokenizer, detail))
        for adapter in source.adapters.values():
            checks += adapter_checks(source.path, [adapter], specs)
        if config.engine == "native":
            checks += engine_checks(config, source.path, spec, specs)
    return sources, [*checks, memory_check(_memory(config, specs, sources))]


def _memory(config: Serve, specs: Specs, sources: Sequence[Source]) -> int:
    """Bytes of the largest models that may be in memory together."""
    found = (specs.of(source.path, ModelSpec) for source in sources)
    each = (generation_memory(spec, PROMPT_TOKENS, config=config, specs=specs) for spec in found)
    return sum(sorted(each, reverse=True)[: config.max_loaded])


def engine_check(config: Serve, source: Source) -> Check:
    """Whether what computes is installed, and can obey the settings."""
    if config.engine != "native":
        try:
            program_of(config, source.path, source.name, 0, "")
        except UserError as error:
            return Check("engine", False, f"{error.message.removeprefix('engine: ')}. {error.hint}")
    return Check("engine", True, config.engine)


def run_serve(plan: Plan, context: Context) -> Result:
    """Serve until SIGINT or SIGTERM."""
    assert isinstance(plan.config, Serve)
    serve(plan.config, reporter=context.reporter)
    return Result()


def serve(config: Serve, *, reporter: Reporter | None = None, ready: Callable[[int], None] | None = None) -> None:
    """Load the first model and answer until SIGINT or SIGTERM; blocks.

    `ready` is called with the port once requests can be answered. Raises UserError when the
    port is taken (BusyError), the model cannot be loaded, or others could come in without a key; the port is
    taken first.
    """
    say = (reporter or Lines()).say
    require_access(config)
    sources = sources_of(config)
    if config.engine != "native":
        from bottega.serve.backends.run import serve_backend

        serve_backend(config, sources[0], say, ready or (lambda _: None))
    else:
        _serve_native(config, sources, say, ready)


def _serve_native(
    config: Serve, sources: Sequence[Source], say: Callable[[str], None], ready: Callable[[int], None] | None
) -> None:
    with open_socket(config.host, config.port) as listener:
        from bottega.serve.app import create_app

        first = load_generator(config, sources[0])
        models = open_models(config, sources)
        app = create_app(models, config, first)

        def announce() -> None:
            if not is_loopback(config.host) and not keys_of(config):
                say("Anyone who can reach this machine can use the model: no API key is set.")
            if first.precision_note:
                say(first.precision_note)
            names = ", ".join(source.name for source in sources)
            say(f"Serving {names} on {base_url(listener, config.host)}/v1 (Ctrl-C stops)")
            if ready is not None:
                ready(listener.getsockname()[1])

        async def end_answers(server: Server) -> None:
            await models.drain(config.drain_seconds, lambda: server.force_exit)
            await models.stop()

        make_server(app, announce, end_answers).run(sockets=[listener])


def open_models(config: Serve, sources: Sequence[Source]) -> Models:
    """The models of the settings, none of them loaded; raises UserError for headers that are no model's."""
    specs = [ModelSpec.read(source.path) for source in sources]
    return Models(sources, specs, config, lambda source: load_generator(config, source))


def load_generator(config: Serve, source: Source) -> Generator:
    """The generator of a model with its adapters; raises UserError if it cannot be loaded."""
    from bottega.generate.config import OnEngine
    from bottega.generate.generator import Generator

    values = {name: getattr(config, name) for name in OnEngine.model_fields}
    settings = OnEngine.parse(values | {"model": str(source.path), "adapter": ()})
    return Generator.of(settings, adapters=source.adapters, max_batch=config.max_batch)
