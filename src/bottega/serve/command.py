"""`bottega serve MODEL`: plan (the model's headers, the port), then serve until told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from bottega.checkpoint.folder import adapter_checks
from bottega.checkpoint.hub import locate
from bottega.checkpoint.spec import ModelSpec
from bottega.core.machine import memory_check
from bottega.core.plan import Check, Plan, Specs
from bottega.core.progress import Lines, Reporter
from bottega.core.verb import Context, Result
from bottega.generate.verb import PROMPT_TOKENS, generation_memory
from bottega.serve.config import Serve
from bottega.serve.guard import is_loopback
from bottega.serve.listen import base_url, make_server, open_socket, port_check


def plan_serve(config: Serve, specs: Specs) -> Plan:
    """Check the model from its headers, and that the port is free."""
    folder, checks = check_model(config, specs)
    return Plan(
        verb="serve",
        config=config,
        inputs={"model": folder},
        checks=[*checks, port_check(config.host, config.port)],
        work=[f"load {folder}", f"answer OpenAI's API on http://{config.host}:{config.port}/v1 until stopped"],
    )


def check_model(config: Serve, specs: Specs) -> tuple[Path, list[Check]]:
    """The model's folder, and whether it can be served as far as its headers tell."""
    folder = locate(config.model)
    spec = specs.of(folder, ModelSpec)
    has_tokenizer = spec.has_tokenizer
    memory = memory_check(generation_memory(spec, PROMPT_TOKENS))
    detail = "is there" if has_tokenizer else f"{folder} has none"
    return folder, [Check("tokenizer", has_tokenizer, detail), memory, *adapter_checks(folder, config.adapter)]


def run_serve(plan: Plan, context: Context) -> Result:
    """Serve until SIGINT or SIGTERM."""
    assert isinstance(plan.config, Serve)
    serve(plan.config, folder=plan.inputs["model"], reporter=context.reporter)
    return Result()


def serve(
    config: Serve,
    *,
    folder: Path | None = None,
    reporter: Reporter | None = None,
    ready: Callable[[int], None] | None = None,
) -> None:
    """Load the model and answer until SIGINT or SIGTERM; blocks.

    `ready` is called with the port once requests can be answered. Raises UserError when the
    port is taken (BusyError) or the model cannot be loaded; the port is taken first.
    """
    say = (reporter or Lines()).say
    folder = folder or locate(config.model)
    with open_socket(config.host, config.port) as listener:
        from bottega.generate.generator import Generator
        from bottega.serve.app import create_app
        from bottega.serve.engine import Engine

        generator = Generator.of(config.model_copy(update={"model": str(folder)}))
        engine = Engine(generator, max_queue=config.max_queue)
        app = create_app(engine, config, config.name or model_name(config))

        def announce() -> None:
            if not is_loopback(config.host) and config.api_key is None:
                say("Anyone who can reach this machine can use the model: no API key is set.")
            if generator.precision_note:
                say(generator.precision_note)
            say(f"Serving {folder} on {base_url(listener, config.host)}/v1 (Ctrl-C stops)")
            if ready is not None:
                ready(listener.getsockname()[1])

        async def end_answers() -> None:
            await asyncio.to_thread(engine.stop)

        make_server(app, announce, end_answers).run(sockets=[listener])


def model_name(config: Serve) -> str:
    """By what name clients ask for the model: the folder's last part, or the hub's org/name."""
    path = Path(config.model)
    return path.resolve().name if path.exists() else config.model
