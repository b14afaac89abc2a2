"""From a model folder to a decoder with a quantised base, a matrix at a time: the dense model is never whole in memory.

A folder that bitsandbytes quantised to 4 bits gives its codes as they are; everything else is quantised on the way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bottega.checkpoint.config import CONFIG_FILE, places, read_json
from bottega.checkpoint.folder import ModelFolder, weight_files
from bottega.checkpoint.header import read_headers
from bottega.checkpoint.tensors import LazyTensor, map_tensors
from bottega.codec import bitsandbytes
from bottega.codec.blockwise import dynamic_levels
from bottega.codec.nf4 import FourBit
from bottega.core.errors import UserError
from bottega.model.decoder import Decoder
from bottega.model.load import with_weights
from bottega.model.quantised import KEEP, Kind, NF4Linear, QuantisedLinear, linear_layers


def load_quantised(
    model: Path | str,
    kind: Kind,
    *,
    double_quant: bool = True,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    keep: tuple[str, ...] = KEEP,
) -> Decoder:
    """Read a folder with its linear layers quantised to `kind`, and what is not quantised in `dtype`; eval mode.

    Weights are quantised from the numbers that are stored, before `dtype`, which the layers give their dense weight
    in. With `kind` "nf4", matrices that are stored in 4 bits keep those codes, whatever `double_quant` says; fused
    ones (Phi-3's) and those of other formats are read and quantised again. Raises UserError as `ModelFolder.open`, and
    for weights that are not finite.
    """
    folder = ModelFolder.open(model)
    with torch.device("meta"):
        decoder = Decoder(folder.config)
    layers = linear_layers(decoder, keep)
    stored = _four_bit_tensors(folder) if kind == "nf4" else {}
    state: dict[str, Tensor] = {}
    for place in places(folder.config):
        if place.name in stored and (name := _layer_name(place.holds[0][0])) in layers and len(place.holds) == 1:
            codes = stored[place.name].copied(torch.device(device))
            shape = (layers[name].out_features, layers[name].in_features)
            state |= _replace(decoder, name, NF4Linear(codes, shape, dtype, _frozen(layers[name].bias)))
            continue
        for parameter, part in place.unpack(folder.tensors[place.name].load()).items():
            if (name := _layer_name(parameter)) in layers and parameter.endswith(".weight"):
                layer = _quantised(parameter, part.to(device), kind, double_quant, _frozen(layers[name].bias), dtype)
                state |= _replace(decoder, name, layer)
            else:  # a copy: the weights must not change when the file does
                state[parameter] = part.to(
                    device=device, dtype=dtype, copy=True, memory_format=torch.contiguous_format
                )
    return with_weights(decoder, state)


def _quantised(parameter: str, *arguments: Any) -> QuantisedLinear:
    """`QuantisedLinear.from_weight`, whose errors name the parameter."""
    try:
        return QuantisedLinear.from_weight(*arguments)
    except UserError as error:
        raise UserError(f"{parameter}: {error.message}", hint=error.hint) from None


def _layer_name(parameter: str) -> str:
    return parameter.rpartition(".")[0]


def _frozen(bias: nn.Parameter | None) -> nn.Parameter | None:
    if bias is not None:
        bias.requires_grad_(False)
    return bias


def _replace(decoder: Decoder, name: str, layer: QuantisedLinear) -> dict[str, Tensor]:
    """Put the layer in; its codes and scales by their names in the decoder. The bias is loaded like any other."""
    decoder.set_submodule(name, layer)
    return {f"{name}.{key}": part for key, part in layer.state_dict().items() if key != "bias"}


def _four_bit_tensors(folder: ModelFolder) -> dict[str, FourBit]:
    """The 4-bit tensors of a folder of bitsandbytes' by their names in the family's layout; {} for other folders.

    `ModelFolder.open` has checked that the parts fit each other.
    """
    if not folder.path.is_dir() or not read_json(folder.path / CONFIG_FILE).get("quantization_config"):
        return {}
    if weight_files(folder.path)[0].suffix == ".bin":
        return {}
    tensors, found = map_tensors(read_headers(folder.path)), {}
    for state_name in tensors:
        weight = state_name.partition(f".{bitsandbytes.STATE}")[0]
        if weight != state_name:
            stored = _four_bit(tensors, weight, state_name)
            if stored.block % 2 == 0:  # a byte must not lie in two blocks
                found[folder.config.family.proper_name(weight)] = stored
    return found


def _four_bit(tensors: dict[str, LazyTensor], weight: str, state_name: str) -> FourBit:
    state = bitsandbytes.read_state(tensors[state_name].content())

    def part(name: str) -> Tensor:
        return tensors[f"{weight}.{name}"].load()

    codes = tensors[weight].load().contiguous().reshape(-1).view(torch.uint8)
    scales = part("absmax")
    nested = scales.dtype == torch.uint8
    return FourBit(
        codes=codes,
        scales=scales,
        outer=part("nested_absmax") if nested else None,
        offset=torch.tensor(state.nested_offset) if nested else None,
        levels=part("quant_map"),
        scale_levels=part("nested_quant_map") if nested else dynamic_levels(True),
        block=state.blocksize,
        scale_block=state.nested_blocksize,
    )
