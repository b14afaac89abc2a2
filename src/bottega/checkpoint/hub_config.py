"""Settings of the verbs of the hub."""

from __future__ import annotations

from pathlib import Path

from bottega.core.schema import Config


class PullModel(Config):
    """Settings of `bottega hub pull`."""

    model: str
    """ORG/NAME[@REVISION] of the hub; the revision is a branch, a tag or a commit."""
    out: Path | None = None
    """Plain folder to write (default: huggingface_hub's cache, where every verb finds it by its name)."""
    overwrite: bool = False
    """Replace OUT if it exists already."""


class PushModel(Config):
    """Settings of `bottega hub push`."""

    folder: Path
    """Folder of a model, an adapter or a tokenizer."""
    repository: str
    """ORG/NAME to push to; it is created if it is not there."""
    private: bool = False
    """Create the repository so that only its owner sees it."""
    revision: str = "main"
    """Branch to push to; it is created if it is not there."""
    message: str = "Push with bottega"
    """What the commit says."""


class ListModels(Config):
    """Settings of `bottega hub list`."""

    cache: Path | None = None
    """The cache to look into (default: that of this machine)."""


class RemoveModel(Config):
    """Settings of `bottega hub rm`."""

    model: str
    """ORG/NAME[@REVISION] as `hub list` shows it; a commit may be shortened."""
    yes: bool = False
    """Do not ask."""
    cache: Path | None = None
    """The cache to remove it from (default: that of this machine)."""
