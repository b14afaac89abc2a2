"""Where and how a run is started on other machines: the section `launch` of a recipe. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from bottega.core.schema import Config, Names

Kind = Literal["torchrun", "slurm", "skypilot", "deepspeed"]
WORD = r"[\w.,@%+/:=-]+"  # what stands in a script without quotes: no spaces, nothing that a shell would read


class LaunchSettings(Config):
    """Instead of running, write the files that start the run elsewhere (docs/scale.md)."""

    word: ClassVar[str] = "kind"

    kind: Kind = "torchrun"
    """What starts the processes."""
    nodes: int = Field(default=1, ge=1)
    """Machines."""
    gpus_per_node: int = Field(default=8, ge=0)
    """GPUs of each, one process each; 0 for one process on the CPU."""
    hours: float | None = Field(default=None, gt=0, le=8760)
    """Longest time."""
    partition: str | None = Field(default=None, pattern=f"^{WORD}$")
    """Slurm's partition."""
    account: str | None = Field(default=None, pattern=f"^{WORD}$")
    """Whom Slurm charges."""
    cpus_per_node: int | None = Field(default=None, ge=1)
    """CPU cores of each machine."""
    memory: str | None = Field(default=None, pattern=r"^\d+[KMGT]?$")
    """Memory of each machine, as Slurm writes it: 512G."""
    accelerators: str | None = Field(default=None, pattern=r"^[\w.-]+(:\d+)?$")
    """SkyPilot's name and number of GPUs of each machine: H100:8."""
    infra: str | None = Field(default=None, pattern=f"^{WORD}$")
    """Where SkyPilot is to look: aws, gcp/us-central1, kubernetes."""
    spot: bool = False
    """Whether SkyPilot may take machines that can be taken away again."""
    bucket: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9._-]+$")
    """Bucket that SkyPilot mounts at OUT's folder, so that a run outlives its machines."""
    image: str | None = Field(default=None, pattern=f"^{WORD}$")
    """Container (Slurm: for pyxis), or SkyPilot's image_id."""
    workdir: Path | None = None
    """Folder to start in; paths of the recipe count from there (default: where the files are written from)."""
    setup: Names = ()
    """Shell lines before the run: modules, environments, installation."""
    port: int = Field(default=29500, ge=1024, le=65535)
    """Port at which the processes meet."""

    @model_validator(mode="after")
    def _consistent(self) -> LaunchSettings:
        if any("\n" in line for line in self.setup):
            raise ValueError("setup is a list of single lines")
        if self.kind == "skypilot" and self.gpus_per_node and not self.accelerators:
            raise ValueError("skypilot needs accelerators, say H100:8 (or gpus_per_node: 0)")
        return self

    @property
    def processes(self) -> int:
        """Processes on each machine."""
        return max(1, self.gpus_per_node)
