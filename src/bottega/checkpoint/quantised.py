"""Folders whose weights others have quantised, read as plain ones: each weight is dequantised when it is loaded.

Which method it was stands in `config.json` under `quantization_config`. *Which* weights are
quantised, in how many bits and groups, is read off the stored tensors and their shapes, so that
lists of exceptions (`modules_to_not_convert`, `ignore`, `dynamic`, several `config_groups`) need
not be understood: a module that was left out is simply stored as `X.weight`. The formats stand
in `bottega.codec`.

Nothing but headers is read before a weight is loaded, with one exception: bitsandbytes' 4-bit
weights and compressed-tensors' packed ones store their shape as a tensor of a few bytes.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bottega.checkpoint.header import TensorInfo
from bottega.checkpoint.tensors import LazyTensor
from bottega.codec import awq, bitsandbytes, compressed_tensors, fp8, gptq
from bottega.codec.parts import Sharing, require
from bottega.core.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

# What other tensors of such folders are for: the quantisation of activations and of the cache, which we do not do.
ACTIVATION_SUFFIXES = tuple(
    f".{of}_{what}" for of in ("input", "output", "activation", "q", "k", "v") for what in ("scale", "zero_point")
)
_OTHER = "Use the model it was made from."
_Tensors = Mapping[str, LazyTensor]
_Config = Mapping[str, Any]


@dataclass(frozen=True)
class _Weight:
    """One quantised weight: `stored` maps each of its parts to the name it is stored under."""

    name: str
    shape: tuple[int, ...]
    stored: dict[str, str]
    read: Callable[[Mapping[str, Tensor]], Tensor]


def dequantised(tensors: _Tensors, quantization_config: Any, dtype: str) -> dict[str, LazyTensor]:
    """The tensors of a quantised folder as plain ones: `X.weight` in `dtype` (torch's name), without its parts.

    `load()` dequantises that one weight, in float32, and rounds it to `dtype`. Tensors that are not
    quantised stay as they are. Raises UserError for a method that is not read, and for parts that
    do not fit; it names method and tensor.
    """
    method = _method(quantization_config)
    weights = _METHODS[method](tensors, quantization_config)
    at = {stored: weight for weight in weights for stored in weight.stored.values()}
    dropped = ACTIVATION_SUFFIXES if method in ("fp8", "fbgemm_fp8", "compressed-tensors") else ()
    plain: dict[str, LazyTensor] = {}
    for name, tensor in tensors.items():
        weight = at.get(name)
        if weight is not None:
            plain[weight.name] = _lazy(method, weight, tensors, dtype)
        elif not name.endswith(dropped):
            plain[name] = tensor
    for weight in weights:
        if weight.name in tensors and weight.name not in weight.stored.values():
            raise UserError(f"{method}: {weight.name} is stored twice, plain and quantised")
    return plain


def describe(quantization_config: Any) -> str:
    """What a quantised folder is, in a few words, such as "GPTQ, 4 bits, groups of 128"; raises UserError."""
    method, config = _method(quantization_config), quantization_config
    if method in ("gptq", "awq"):
        return f"{method.upper()}, {_bits_and_groups(config)}"
    if method == "bitsandbytes":
        if not config.get("load_in_4bit", config.get("_load_in_4bit")):
            return "bitsandbytes, LLM.int8"
        double = ", double quantisation" if config.get("bnb_4bit_use_double_quant") else ""
        return f"bitsandbytes, {str(config.get('bnb_4bit_quant_type', 'fp4')).upper()[:8]}{double}"
    if method == "compressed-tensors":
        groups = _groups(config)
        also = f", {len(groups)} kinds of modules" if len(groups) > 1 else ""
        form = str(config.get("format"))[:60]
        return f"compressed-tensors, {form}, {_bits_and_groups(groups[0] if groups else {})}{also}"
    block = _block(config.get("weight_block_size"))
    return f"fp8, blocks of {block[0]} × {block[1]}" if block else "fp8"


def _bits_and_groups(config: _Config) -> str:
    bits, group_size = _whole(config, "bits", _whole(config, "num_bits")), _whole(config, "group_size")
    parts = [f"{bits} bits"] if bits else []
    if group_size is not None:
        parts.append(f"groups of {group_size}" if group_size > 0 else "one group")
    return ", ".join(parts) or "sizes as stored"


def _lazy(method: str, weight: _Weight, tensors: _Tensors, dtype: str) -> LazyTensor:
    def load() -> Tensor:
        import torch

        with _named(method, weight.name):
            parts = {part: tensors[stored].load() for part, stored in weight.stored.items()}
            return weight.read(parts).to(getattr(torch, dtype))

    return LazyTensor(TensorInfo(weight.shape, dtype), load)


@contextlib.contextmanager
def _named(method: str, name: str) -> Iterator[None]:
    """Let a UserError say of which method and weight it speaks."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{method}: {name}: {error.message}", hint=error.hint) from None


def _method(config: Any) -> str:
    if not isinstance(config, Mapping):
        raise UserError("quantization_config is not a JSON object")
    method = config.get("quant_method")
    if method is None and (config.get("load_in_4bit") or config.get("load_in_8bit")):
        return "bitsandbytes"  # as the first folders of this kind said it
    if not isinstance(method, str) or method.lower() not in _METHODS:
        read = ", ".join(_METHODS)
        hint = did_you_mean(method, _METHODS) if isinstance(method, str) else ""
        raise UserError(
            f"the weights are quantised ({str(method)[:60]}), and this method is not read; read are {read}",
            hint=hint if hint.startswith("Did") else _OTHER,
        )
    return method.lower()


def _whole(config: _Config, key: str, default: int | None = None) -> int | None:
    value = config.get(key, default)
    if value is not None and (type(value) is not int or abs(value) >= 1 << 31):
        raise UserError(f"quantization_config: {key} must be a whole number, not {str(value)[:60]!r}")
    return value


def _block(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2 or not all(type(n) is int and 0 < n <= 1 << 20 for n in value):
        raise UserError(f"quantization_config: blocks of {str(value)[:60]} are not two positive whole numbers")
    return value[0], value[1]


def _parts(
    tensors: _Tensors, module: str, needed: Iterable[str], optional: Iterable[str] = ()
) -> tuple[dict[str, str], dict[str, TensorInfo]]:
    """Names under which the parts of a module are stored, and what their headers say; raises UserError."""
    stored = {part: f"{module}.{part}" for part in needed}
    missing = [name for name in stored.values() if name not in tensors]
    require(not missing, f"{', '.join(missing)} is missing")
    stored |= {part: f"{module}.{part}" for part in optional if f"{module}.{part}" in tensors}
    return stored, {part: tensors[name].info for part, name in stored.items()}


def _modules(tensors: _Tensors, suffix: str) -> list[str]:
    return [name.removesuffix(suffix) for name in tensors if name.endswith(suffix)]


def _gptq(tensors: _Tensors, config: _Config) -> list[_Weight]:
    version = config.get("checkpoint_format") or "gptq"
    if not isinstance(version, str) or version not in gptq.ZERO_OFFSETS or config.get("is_marlin_format"):
        raise UserError(f"gptq: the checkpoint format {str(version)[:60]!r} is not read", hint=_OTHER)
    group_size, bits, offset = _whole(config, "group_size"), _whole(config, "bits"), gptq.ZERO_OFFSETS[version]
    mixed = bits is None or bool(config.get("dynamic"))
    weights = []
    for module in _modules(tensors, ".qweight"):
        with _named("gptq", f"{module}.weight"):
            stored, infos = _parts(tensors, module, gptq.PARTS, gptq.OPTIONAL)
            layout = gptq.layout(infos, group_size)
            require(mixed or layout.bits == bits, f"it has {layout.bits} bits, the config says {bits}")
        read = functools.partial(gptq.dequantise, group_size=group_size, zero_offset=offset)
        weights.append(_Weight(f"{module}.weight", layout.shape, stored, read))
    return weights


def _awq(tensors: _Tensors, config: _Config) -> list[_Weight]:
    version, bits, group_size = config.get("version", "gemm"), _whole(config, "bits"), _whole(config, "group_size")
    if str(version).lower() != "gemm" or bits not in (None, awq.BITS):
        raise UserError(
            f"awq: version {str(version)[:60]!r} with {bits} bits is not read; only gemm with 4", hint=_OTHER
        )
    weights = []
    for module in _modules(tensors, ".qweight"):
        with _named("awq", f"{module}.weight"):
            stored, infos = _parts(tensors, module, awq.PARTS)
            shape = awq.weight_shape(infos, group_size)
        read = functools.partial(awq.dequantise, group_size=group_size)
        weights.append(_Weight(f"{module}.weight", shape, stored, read))
    return weights


def _bitsandbytes(tensors: _Tensors, _: _Config) -> list[_Weight]:
    weights = []
    for name in tensors:
        weight = name.partition(f".{bitsandbytes.STATE}")[0]
        if weight != name:
            with _named("bitsandbytes", weight):
                weights.append(_bitsandbytes_4bit(tensors, weight, name))
    for module in _modules(tensors, ".SCB"):
        with _named("bitsandbytes", f"{module}.weight"):
            stored, infos = _parts(tensors, module, ("weight", "SCB"), ("weight_format",))
            shape = bitsandbytes.weight_shape_8bit(infos)
        weights.append(_Weight(f"{module}.weight", shape, stored, bitsandbytes.dequantise_8bit))
    return weights


def _bitsandbytes_4bit(tensors: _Tensors, weight: str, state_name: str) -> _Weight:
    require(weight in tensors, "it is missing; only its state is stored")
    require(tensors[state_name].nbytes <= bitsandbytes.MAX_STATE_BYTES, "its quant_state is too large")
    stored, infos = _parts(tensors, weight, bitsandbytes.PARTS, bitsandbytes.NESTED)
    state = bitsandbytes.read_state(tensors[state_name].content())
    bitsandbytes.check_4bit(tensors[weight].nbytes, infos, state)
    read = functools.partial(bitsandbytes.dequantise_4bit, state=state)
    return _Weight(weight, state.shape, {**stored, "weight": weight, "state": state_name}, read)


def _fp8(tensors: _Tensors, config: _Config) -> list[_Weight]:
    sharing = Sharing(block=_block(config.get("weight_block_size")))
    weights = []
    for name, tensor in tensors.items():
        if tensor.dtype not in fp8.DTYPES:
            continue
        with _named("fp8", name):
            scales = [f"{name}{end}" for end in fp8.SCALE_SUFFIXES if f"{name}{end}" in tensors]
            require(len(scales) == 1, f"one of {' and '.join(name + end for end in fp8.SCALE_SUFFIXES)} is needed")
            stored = {"weight": name, "scale": scales[0]}
            shape = fp8.weight_shape({part: tensors[at].info for part, at in stored.items()}, sharing)
        weights.append(_Weight(name, shape, stored, functools.partial(fp8.dequantise, sharing=sharing)))
    return weights


def _compressed(tensors: _Tensors, config: _Config) -> list[_Weight]:
    groups = _groups(config)
    _require_format(config)
    known = {bits for group in groups if (bits := _whole(group, "num_bits")) is not None}
    sizes = {_whole(group, "group_size") for group in groups}
    blocks = [block for group in groups if (block := _block(group.get("block_structure")))]
    sharing = Sharing(sizes.pop() if len(sizes) == 1 else None, blocks[0] if blocks else None)
    weights = []
    for module in _modules(tensors, f".{compressed_tensors.PACKED}"):
        with _named("compressed-tensors", f"{module}.weight"):
            stored, infos = _parts(tensors, module, compressed_tensors.PACKED_PARTS, compressed_tensors.OPTIONAL)
            content = tensors[stored["weight_shape"]].content
            shape, bits = compressed_tensors.packed_layout(infos, content, known, sharing)
        read = functools.partial(compressed_tensors.dequantise_packed, shape=shape, bits=bits, sharing=sharing)
        weights.append(_Weight(f"{module}.weight", shape, stored, read))
    for module in _modules(tensors, ".weight"):
        if tensors[f"{module}.weight"].dtype not in compressed_tensors.PLAIN_DTYPES:
            continue
        with _named("compressed-tensors", f"{module}.weight"):
            stored, infos = _parts(tensors, module, compressed_tensors.PLAIN_PARTS, compressed_tensors.OPTIONAL)
            shape = compressed_tensors.plain_shape(infos, sharing)
        read = functools.partial(compressed_tensors.dequantise_plain, sharing=sharing)
        weights.append(_Weight(f"{module}.weight", shape, stored, read))
    return weights


def _groups(config: _Config) -> list[_Config]:
    """What compressed-tensors' config says of the weights of each group of modules."""
    groups = config.get("config_groups") or {}
    if not isinstance(groups, Mapping) or not all(isinstance(group, Mapping) for group in groups.values()):
        raise UserError("quantization_config: config_groups is not an object of objects")
    return [weights for group in groups.values() if isinstance(weights := group.get("weights"), Mapping)]


def _require_format(config: _Config) -> None:
    """Raise UserError if compressed-tensors' config names a format that is not read."""
    sparsity = config.get("sparsity_config") or {}
    places = [config, sparsity, *(config.get("config_groups") or {}).values()]
    named = [str(place["format"]) for place in places if isinstance(place, Mapping) and place.get("format")]
    unread = [name for name in named if name not in compressed_tensors.FORMATS]
    if unread:
        raise UserError(f"compressed-tensors: the format {unread[0][:60]!r} is not read", hint=_OTHER)
    if config.get("transform_config"):
        raise UserError("compressed-tensors: weights stored rotated (transform_config) are not read", hint=_OTHER)


_METHODS: dict[str, Callable[[_Tensors, _Config], list[_Weight]]] = {
    "gptq": _gptq,
    "awq": _awq,
    "bitsandbytes": _bitsandbytes,
    "fp8": _fp8,
    "fbgemm_fp8": _fp8,
    "compressed-tensors": _compressed,
}
