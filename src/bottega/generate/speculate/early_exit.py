"""Self-speculation: the first layers of a model draft for all of them, with its own norm and head.

LayerSkip (Elhoushi et al. 2024, arXiv:2404.16710), without its training: no second model and no second vocabulary, one
more small cache. A model that was not trained to be left early drafts poorly; the controller then turns it off.
"""

from __future__ import annotations

import copy

from bottega.core.errors import UserError
from bottega.generate.speculate.draft import DraftModel
from bottega.model.decoder import Decoder


def early_exit(decoder: Decoder, layers: int, *, threshold: float = 0.0) -> DraftModel:
    """A proposer of the decoder's first `layers` layers; UserError if these are none or all of them.

    Args:
        decoder: the target; its weights are shared, it is not changed.
        layers: how many.
        threshold: drafting stops before a token to which they give less probability; 0 never.
    """
    if not 1 <= layers < decoder.config.num_hidden_layers:
        raise UserError(
            f"early exit behind layer {layers} of {decoder.config.num_hidden_layers}",
            hint=f"It must be 1 to {decoder.config.num_hidden_layers - 1}.",
        )
    return DraftModel(first_layers(decoder, layers), threshold=threshold)


def first_layers(decoder: Decoder, layers: int) -> Decoder:
    """A decoder of the first `layers` layers, which shares all modules with `decoder`."""
    # The config's switches keep an entry for every layer; a new config could refuse the lists of its family.
    config = copy.copy(decoder.config)
    object.__setattr__(config, "num_hidden_layers", layers)
    shallow, backbone = copy.copy(decoder), copy.copy(decoder.model)
    # copy.copy shares the table of submodules with the original; each needs its own before one is exchanged.
    shallow._modules, backbone._modules = dict(decoder._modules), dict(decoder.model._modules)
    backbone.layers = decoder.model.layers[:layers]
    shallow.model, shallow.config = backbone, config
    return shallow
