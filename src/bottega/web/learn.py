"""`bottega learn [MODEL…] --port PORT`: the course, and with a model the chat page beside it. Imports no torch."""

from __future__ import annotations

from bottega.core.errors import UserError
from bottega.core.plan import Check, Plan, Specs
from bottega.core.progress import Lines, Reporter
from bottega.core.schema import Names
from bottega.core.verb import Context, Result
from bottega.core.workspace import open_workspace, workspace_path
from bottega.course.learner.learner import Learner
from bottega.serve.access import access_check, require_access
from bottega.serve.command import check_models
from bottega.serve.listen import base_url, make_server, open_socket, port_check
from bottega.web.app import HERE, create_app
from bottega.web.config import Web
from bottega.web.course.pages import CoursePages
from bottega.web.supervisor import Supervisor


class Learn(Web):
    """Open the course. With models, the chat page and the arena stand beside it."""

    model: Names = ()
    """Model folder, or org/name of the hub, to chat with (default: the course alone)."""


def plan_learn(config: Learn, specs: Specs) -> Plan:
    """Check the models from their headers, and that the port is free."""
    sources, checks = check_models(config, specs) if config.model else ([], [])
    folder = workspace_path(config.workspace)
    checks.append(Check("workspace", not folder.is_file(), f"{folder}{' is a file' if folder.is_file() else ''}"))
    work = [
        f"show the course on http://{config.host}:{config.port}",
        f"keep answers and exercises in {folder / 'course'}",
    ]
    if config.model:
        work.append(f"start `bottega serve {' '.join(config.model)}` beside it")
    inputs = {source.name: source.path for source in sources}
    checks += [access_check(config), port_check(config.host, config.port)]
    return Plan(verb="learn", config=config, inputs=inputs, checks=checks, work=work)


def run_learn(plan: Plan, context: Context) -> Result:
    """Serve until SIGINT or SIGTERM."""
    assert isinstance(plan.config, Learn)
    learn(plan.config, reporter=context.reporter)
    return Result()


def learn(config: Learn, *, learner: Learner | None = None, reporter: Reporter | None = None) -> None:
    """Serve the course until SIGINT or SIGTERM; blocks. Raises BusyError when the port is taken."""
    say = (reporter or Lines()).say
    require_access(config)
    with open_socket(config.host, config.port) as listener:
        learner = learner or Learner.open(folder=open_workspace(workspace_path(config.workspace)) / "course")
        supervisor = Supervisor(config) if config.model else None
        course = CoursePages(learner, HERE / "templates", chat=supervisor is not None)
        app = create_app(config, supervisor, course)
        stop = supervisor.stop if supervisor is not None else course.close
        address = base_url(listener, config.host)
        server = make_server(app, lambda: say(f"Open {address} (Ctrl-C stops)"), lambda _: stop())
        if supervisor is not None:
            supervisor.when_refused(lambda: setattr(server, "should_exit", True))
        server.run(sockets=[listener])
    if supervisor is not None and supervisor.refused:
        raise UserError(supervisor.refused, hint="The model was not served.")
