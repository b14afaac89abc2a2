"""huggingface_hub, if it is installed, and its errors in words that say what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from bottega.core.errors import UserError

HUB = "https://huggingface.co"


class NotAvailable(UserError):
    """The hub does not give the repository, or cannot be reached; what the cache holds may do."""


def hub_package() -> Any:
    """The package huggingface_hub; raises UserError that names the extra."""
    try:
        import huggingface_hub
    except ImportError:
        raise UserError(
            "fetching a model from the hub, or pushing one, needs huggingface_hub",
            hint="Install it with: pip install 'bottega[hub]'. Or name the folder of a model on this machine.",
        ) from None
    return huggingface_hub


@contextlib.contextmanager
def without_its_bars() -> Iterator[None]:
    """Keep huggingface_hub's own progress bars off; ours goes through the reporter."""
    from huggingface_hub import utils

    if utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()


def plain_text(text: object) -> str:
    """What somebody else wrote, fit for a terminal: on one line, without control characters, not too long."""
    line = " ".join(str(text).split())
    return "".join(character for character in line if character.isprintable())[:200]


def explained(error: Exception, label: str) -> Exception:
    """An error of huggingface_hub as a UserError about `label`; one of the machine (a full disk) stays itself."""
    from huggingface_hub import errors

    if isinstance(error, UserError):
        return error
    if isinstance(error, errors.HFValidationError):
        return UserError(f"{label} is not a name that the hub can have", hint="Names have the form org/name.")
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(f"{label}: the repository has no such revision", hint="Name a branch, a tag or a commit.")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return _unreachable(label, "HF_HUB_OFFLINE is set")
    if isinstance(error, errors.HfHubHTTPError) and error.response is not None:
        return _refusal(error, error.response.status_code, label)
    # httpx or httpx2, whichever this version of huggingface_hub is built on.
    transport = errors.HfHubHTTPError.__mro__[1]
    if isinstance(error, (transport, ConnectionError, TimeoutError)):
        return _unreachable(label, type(error).__name__)
    if isinstance(error, (ValueError, TypeError, KeyError, AttributeError)):
        return UserError(f"{label}: the hub's answer cannot be understood ({plain_text(error)})")
    return error


def _unreachable(label: str, why: str) -> UserError:
    return NotAvailable(
        f"{label}: the hub cannot be reached ({why})",
        hint="Without a connection, name the folder of a model on this machine (or one fetched before).",
    )


def _refusal(error: Exception, status: int, label: str) -> UserError:
    """What the hub means by an HTTP status that is no success."""
    from huggingface_hub import errors

    name = label.partition("@")[0]
    if isinstance(error, errors.GatedRepoError):
        return NotAvailable(
            f"{label} is gated: its owner wants you to agree to terms first",
            hint=f"Accept them at {HUB}/{name}, then run: hf auth login",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return NotAvailable(
            f"{label}: the hub has no such model that you may see",
            hint="Check the name. For a private one run: hf auth login",
        )
    if status == 429 or status >= 500:
        return NotAvailable(f"{label}: the hub is busy (HTTP status {status})", hint="Try again later.")
    if status in (401, 403):
        return NotAvailable(
            f"{label}: the hub does not allow it (HTTP status {status})",
            hint="Log in with a token that may do this: hf auth login",
        )
    return NotAvailable(f"{label}: the hub refused (HTTP status {status})", hint="Try again later.")
