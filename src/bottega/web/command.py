"""`bottega web MODEL… --port PORT`: the chat page, the arena and the API on one port."""

from __future__ import annotations

from bottega.core.errors import UserError
from bottega.core.plan import Check, Plan, Specs
from bottega.core.progress import Lines, Reporter
from bottega.core.verb import Context, Result
from bottega.core.workspace import workspace_path
from bottega.serve.access import access_check, keys_of, require_access
from bottega.serve.command import check_models
from bottega.serve.guard import is_loopback
from bottega.serve.listen import base_url, make_server, open_socket, port_check
from bottega.web.app import create_app
from bottega.web.config import Web
from bottega.web.feedback import FOLDER
from bottega.web.supervisor import Supervisor


def plan_web(config: Web, specs: Specs) -> Plan:
    """Check the model from its headers, the report, and that the port is free."""
    sources, checks = check_models(config, specs)
    if config.report is not None:
        found = config.report.is_file()
        checks.append(Check("report", found, str(config.report) if found else f"there is no file {config.report}"))
    folder = workspace_path(config.workspace)
    checks.append(Check("workspace", not folder.is_file(), f"{folder}{' is a file' if folder.is_file() else ''}"))
    return Plan(
        verb="web",
        config=config,
        inputs={source.name: source.path for source in sources},
        checks=[*checks, access_check(config), port_check(config.host, config.port)],
        work=[
            f"show the chat page on http://{config.host}:{config.port}, and the arena under /arena",
            f"keep votes and verdicts in {folder / FOLDER}",
            f"start `bottega serve {' '.join(config.model)}` beside it and pass /v1 through",
        ],
    )


def run_web(plan: Plan, context: Context) -> Result:
    """Serve until SIGINT or SIGTERM."""
    assert isinstance(plan.config, Web)
    web(plan.config, reporter=context.reporter)
    return Result()


def web(config: Web, *, reporter: Reporter | None = None) -> None:
    """Show the page and pass the API through until SIGINT or SIGTERM; blocks.

    Raises BusyError when the port is taken, UserError when the model's server refuses its settings.
    """
    say = (reporter or Lines()).say
    require_access(config)
    with open_socket(config.host, config.port) as listener:

        def announce() -> None:
            if not is_loopback(config.host) and not keys_of(config):
                say("Anyone who can reach this machine can use the model: no API key is set.")
            say(f"Open {base_url(listener, config.host)} (Ctrl-C stops)")

        supervisor = Supervisor(config)
        server = make_server(create_app(config, supervisor), announce, lambda _: supervisor.stop())
        supervisor.when_refused(lambda: setattr(server, "should_exit", True))
        server.run(sockets=[listener])
    if supervisor.refused:
        raise UserError(supervisor.refused, hint="The model was not served.")
