"""Names of the optimisers, apart from their code so that settings need no torch."""

from typing import Literal

OptimizerName = Literal["adamw", "muon", "adamw8bit", "adamw_kahan", "adamw_masters", "lion", "paged_adamw8bit"]
