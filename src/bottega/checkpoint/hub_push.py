"""`bottega hub push FOLDER ORG/NAME`: a folder that its headers show to be a model, as one commit of the hub.

What goes up is what `hub pull` would fetch: weights in safetensors, settings, tokenizer, card,
licences, and the record without paths of this machine. Everything else stays, and the plan says so.
"""

from __future__ import annotations

import re
from typing import Any

from bottega.checkpoint.hub_config import PushModel
from bottega.checkpoint.hub_content import Sent, checked_kind, contents, remarks
from bottega.checkpoint.hub_errors import explained, hub_package, plain_text, without_its_bars
from bottega.checkpoint.hub_repository import ask, parse_name, require_name
from bottega.core.errors import UserError
from bottega.core.plan import Check, Cost, Plan, Specs
from bottega.core.verb import Context, Result
from bottega.core.view import Block, Table, human_bytes

# Weights under these names would be read instead of, or beside, those of another commit.
_WEIGHTS = re.compile(r"(model|pytorch_model)(-\d{5}-of-\d{5})?\.(safetensors|bin)(\.index\.json)?")


class PushPlan(Plan):
    """A plan that also lists what goes up and what stays."""

    def as_data(self) -> dict[str, Any]:
        """The plan as JSON-able data."""
        return {
            **super().as_data(),
            "kind": self.details["kind"],
            "files": {sent.name: sent.size for sent in self.details["sent"]},
            "left_out": self.details["left_out"],
            "warnings": self.details["warnings"],
        }

    def view(self) -> list[Block]:
        """The plan for people, the files, and what stays."""
        rows = [(sent.name, human_bytes(sent.size), sent.note) for sent in self.details["sent"]]
        stays = [(name, "stays here", why) for name, why in self.details["left_out"].items()]
        return [*super().view(), Table("Files", ("name", "size", ""), [*rows, *stays])]


def plan_push(config: PushModel, specs: Specs) -> Plan:  # noqa: ARG001 (a verb's plan has this form)
    """Check the folder by its headers, and list what would go up; asks the hub nothing."""
    hub_package()
    name, revision = require_name(config.repository)
    if revision is not None:
        raise UserError(f"{config.repository}: a branch is not named with @", hint=f"Pass --revision {revision}.")
    if parse_name(f"{name}@{config.revision}") is None:
        raise UserError(f"{config.revision!r} is not the name of a branch")
    kind = checked_kind(config.folder)
    sent, left_out = contents(config.folder)
    warnings = remarks(config.folder)
    total = sum(file.size for file in sent)
    plan = PushPlan("hub push", config, inputs={"folder": config.folder})
    seen = "private" if config.private else "public unless its owner's settings say otherwise"
    plan.work = [
        f"push {len(sent)} files, {human_bytes(total)}, to {name} ({config.revision}); if it is new: {seen}",
        *(f"warning: {line}" for line in warnings),
    ]
    plan.checks = [Check("folder", True, f"{kind}, by its headers"), *_access()]
    plan.cost = Cost(bytes_read=total)
    plan.details = {"kind": kind, "sent": sent, "left_out": left_out, "warnings": warnings}
    return plan


def _access() -> list[Check]:
    """Whether there is a token, and whether the hub may be spoken to at all."""
    from huggingface_hub import constants

    token = hub_package().get_token() is not None
    said = "found" if token else "there is none: make one that may write, then run: hf auth login (or set HF_TOKEN)"
    checks = [Check("token", token, said)]
    if constants.HF_HUB_OFFLINE:
        checks.append(Check("connection", False, "HF_HUB_OFFLINE is set"))
    return checks


def run_push(plan: Plan, context: Context) -> Result:
    """Upload, then commit everything at once; `data` has repository, revision, commit, url, files, bytes."""
    config = plan.config
    assert isinstance(config, PushModel)
    sent: list[Sent] = plan.details["sent"]
    for line in plan.details["warnings"]:
        context.reporter.say(f"warning: {line}")
    try:
        commit, removed = _push(config, sent, plan.details["kind"], context)
    except UserError:
        raise
    except ValueError as error:  # what the hub found wrong with the card, say
        raise UserError(f"{config.repository}: {plain_text(error)}") from None
    except Exception as error:
        # A failed upload comes as a RuntimeError; its cause says why.
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        raise explained(cause, config.repository) from None
    total = sum(file.size for file in sent)
    data = {
        "repository": config.repository,
        "revision": config.revision,
        "commit": commit.oid,
        "url": str(commit.commit_url),
        "kind": plan.details["kind"],
        "files": {file.name: file.size for file in sent},
        "bytes": total,
        "removed": removed,
        "warnings": plan.details["warnings"],
    }
    rows = [("commit", commit.oid), ("files", f"{len(sent)}, {human_bytes(total)}"), ("url", str(commit.commit_url))]
    if removed:
        rows.append(("removed", ", ".join(removed)))
    return Result(data, [Table(f"{config.repository} ({config.revision})", ("", ""), rows)])


def _push(config: PushModel, sent: list[Sent], kind: str, context: Context) -> tuple[Any, list[str]]:
    """The commit, and the names of older weights that it removes."""
    hub = hub_package()
    api, name, branch = hub.HfApi(library_name="bottega"), config.repository, config.revision
    api.create_repo(name, private=config.private or None, exist_ok=True)
    if branch != "main":
        api.create_branch(name, branch=branch, exist_ok=True)
    there = ask(name, branch)
    if config.private and not there.private:
        raise UserError(
            f"{name} exists and is public, but --private was asked for",
            hint="Make it private in its settings on the hub, or choose another name. Nothing was pushed.",
        )
    new = {file.name for file in sent}
    removed = sorted(file for file in there.files if kind == "model" and _WEIGHTS.fullmatch(file) and file not in new)
    additions = []
    with context.reporter.bar(f"push {name}", sum(file.size for file in sent), "B") as bar, without_its_bars():
        for file in sent:
            addition = hub.CommitOperationAdd(file.name, file.content)
            api.preupload_lfs_files(name, [addition], revision=branch, free_memory=False)
            additions.append(addition)
            bar.advance(file.size, file.name)
        deletions = [hub.CommitOperationDelete(file) for file in removed]
        commit = api.create_commit(name, [*additions, *deletions], commit_message=config.message, revision=branch)
    return commit, removed
