"""A GGUF file as a model folder: the data of its `config.json`, and its tensors under the checkpoint's names.

What llama.cpp's converter did to the tensors is undone as each is loaded; see `gguf_names.py`.
"""

from __future__ import annotations

import mmap
import re
from array import array
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega.checkpoint.family_switches import MOST_EXPERTS
from bottega.checkpoint.gguf_config import config_data, llama3_scaling
from bottega.checkpoint.gguf_names import Change, GgufFamily, Row, family
from bottega.checkpoint.header import TensorInfo
from bottega.checkpoint.tensors import LazyTensor
from bottega.codec import gguf
from bottega.codec.ggml import PLAIN, require_readable
from bottega.codec.gguf import GgufFile, GgufTensor
from bottega.core.errors import UserError, did_you_mean
from bottega.core.mapped import map_file

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = re.compile(r"blk\.(?P<layer>\d{1,6})\.(?P<stem>.+)\.(?P<end>weight|bias)", re.ASCII)
_WHOLE = re.compile(r"(?P<stem>.+)\.(?P<end>weight|bias)")
ROPE_FACTORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
GGUF_SUFFIX = ".gguf"
_MAX_FACTORS = 4096


def open_gguf(file: GgufFile, dtype: str = "float32") -> tuple[dict[str, Any], dict[str, LazyTensor]]:
    """The data of a `config.json`, and the model's tensors by their names in the Hugging Face checkpoint.

    Quantised tensors have the dtype `dtype` and are dequantised when they are loaded; others keep
    theirs. Reads no more (but RoPE's factors, which are a tensor). Raises UserError for
    architectures, tensors and types that are not read.
    """
    try:
        if not file.tensors:
            raise UserError("it holds no tensors: it is the file of a vocabulary, not of a model")
        data = config_data(file.metadata)
        tables = family(data["model_type"])
        tensors = _tensors(file, tables, data, dtype)
        _complete(file, data, tensors)
    except gguf.GgufError:
        raise
    except UserError as error:
        raise UserError(f"{file.path}: {error.message}", hint=error.hint) from None
    return data, tensors


def gguf_files(file: GgufFile) -> list[Path]:
    """The file, or all parts of a split one."""
    return sorted({tensor.file for tensor in file.tensors.values()})


def gguf_description(file: GgufFile) -> str:
    """The types of the file's tensors, the one with the most bytes first, such as "GGUF: Q4_K, Q6_K, F32"."""
    sizes: Counter[str] = Counter()
    for tensor in file.tensors.values():
        sizes[tensor.kind.name] += tensor.nbytes
    return "GGUF: " + ", ".join(name for name, _ in sizes.most_common())


def _tensors(file: GgufFile, tables: GgufFamily, data: dict[str, Any], dtype: str) -> dict[str, LazyTensor]:
    whole, rows = ({row.gguf: row for row in group} for group in (tables.whole, tables.rows))
    maps: dict[Path, mmap.mmap] = {}
    tensors: dict[str, LazyTensor] = {}
    unknown = []
    for name, tensor in file.tensors.items():
        if name in ROPE_FACTORS or name.endswith(".attn_rot_embd.weight"):
            continue
        require_readable(tensor.kind)
        block = _BLOCK.fullmatch(name)
        match = block or _WHOLE.fullmatch(name)
        row = (rows if block else whole).get(match["stem"]) if match else None
        if match is None or row is None or (match["end"] == "bias" and not row.bias):
            unknown.append(name)
            continue
        before = tables.layer.format(layer=int(block["layer"])) if block else ""
        for number, (shape, undo) in enumerate(_undone(tensor, row, match["end"], data)):
            checkpoint_name = f"{before}{row.checkpoint.format(expert=number)}.{match['end']}"
            if checkpoint_name in tensors:
                raise UserError(f"{name!r} stands twice")  # blk.1 and blk.01
            info = TensorInfo(shape, PLAIN.get(tensor.kind.name, dtype))
            tensors[checkpoint_name] = LazyTensor(info, _loader(tensor, undo, info.dtype, maps))
    if unknown:
        known = [f"{row.gguf}.weight" for row in tables.whole] + [f"blk.0.{row.gguf}.weight" for row in tables.rows]
        raise UserError(
            f"{len(unknown)} tensors are not those of a {tables.model_type} model: {', '.join(unknown[:3])}",
            hint=did_you_mean(re.sub(r"^blk\.\d+", "blk.0", unknown[0]), known),
        )
    return tensors


_Undo = Callable[[GgufTensor, Callable[[GgufTensor], "Tensor"]], "Tensor"]


def _undone(tensor: GgufTensor, row: Row, end: str, data: dict[str, Any]) -> list[tuple[tuple[int, ...], _Undo]]:
    """Shape and way of loading of each tensor of the checkpoint that lies in this one; raises UserError."""
    change: Change = "" if row.change == "transposed" and end == "bias" else row.change
    shape, name = tensor.shape, tensor.name
    if change == "experts":
        count = data.get("num_experts", data.get("num_local_experts"))
        if len(shape) != 3 or shape[0] != count or shape[0] > MOST_EXPERTS:
            raise UserError(f"{name} of shape {list(shape)} does not hold {count} experts")
        return [(shape[1:], _expert(number)) for number in range(shape[0])]
    if change in ("rotary_query", "rotary_key", "per_head"):
        heads = data.get("num_attention_heads", data.get("n_head"))
        if change == "rotary_key":
            heads = data.get("num_key_value_heads", heads)
        parts = 3 if change == "per_head" else 2
        if type(heads) is not int or heads < 1 or not shape or shape[0] % (heads * parts):
            raise UserError(f"{name} has {shape[0] if shape else 1} rows, which are not those of {heads} heads")
        undo = per_head if change == "per_head" else rotate_half
        return [(shape, lambda tensor, load: undo(load(tensor), heads))]
    if change == "transposed":
        if len(shape) != 2:
            raise UserError(f"{name} has the shape {list(shape)}; two dimensions are needed")
        return [((shape[1], shape[0]), lambda tensor, load: load(tensor).T.contiguous())]
    if change == "row" and len(shape) == 1:
        return [((1, *shape), lambda tensor, load: load(tensor).reshape(1, -1))]
    if change == "plus_one":
        return [(shape, lambda tensor, load: _minus_one(load(tensor)))]
    return [(shape, lambda tensor, load: load(tensor))]


def _minus_one(weight: Tensor) -> Tensor:
    return (weight.float() - 1).to(weight.dtype)


def _expert(number: int) -> _Undo:
    """Loads one of the stacked tensors: its bytes only."""

    def undo(tensor: GgufTensor, load: Callable[[GgufTensor], Tensor]) -> Tensor:
        nbytes = tensor.nbytes // tensor.shape[0]
        start = tensor.start + number * nbytes
        return load(GgufTensor(tensor.name, tensor.shape[1:], tensor.kind, tensor.file, start, nbytes))

    return undo


def rotate_half(weight: Tensor, heads: int) -> Tensor:
    """Rows (heads · d, …) from pairs that lie side by side (llama.cpp) to pairs half a head apart (Hugging Face)."""
    pairs = weight.reshape(heads, -1, 2, *weight.shape[1:])
    return pairs.transpose(1, 2).reshape(weight.shape)


def per_head(weight: Tensor, heads: int) -> Tensor:
    """Rows (3 · heads · d, …) from all queries, all keys, all values to those of one head after the other."""
    kinds = weight.reshape(3, heads, -1, *weight.shape[1:])
    return kinds.transpose(0, 1).reshape(weight.shape)


def _loader(tensor: GgufTensor, undo: _Undo, dtype: str, maps: dict[Path, mmap.mmap]) -> Callable[[], Tensor]:
    def values(tensor: GgufTensor) -> Tensor:
        import torch

        if tensor.file not in maps:
            maps[tensor.file] = map_file(tensor.file)
        return gguf.load(tensor, getattr(torch, dtype), maps[tensor.file])

    return lambda: undo(tensor, values)


def _complete(file: GgufFile, data: dict[str, Any], tensors: dict[str, LazyTensor]) -> None:
    """Add to `data` what only the tensors tell."""
    embedding = file.tensors.get("token_embd.weight")
    if embedding is not None and len(embedding.shape) == 2:
        data["vocab_size"] = embedding.shape[0]
    data["tie_word_embeddings"] = "output.weight" not in file.tensors
    if data["model_type"] in ("llama", "mistral", "mixtral", "smollm3", "qwen3", "qwen3_moe", "olmo2"):
        data["attention_bias"] = "blk.0.attn_q.bias" in file.tensors
    if data["model_type"] in ("llama", "smollm3"):
        data["mlp_bias"] = "blk.0.ffn_up.bias" in file.tensors
    for key, name in (("moe_intermediate_size", "ffn_up_exps"), ("shared_expert_intermediate_size", "ffn_up_shexp")):
        stored = file.tensors.get(f"blk.0.{name}.weight")
        if stored is not None and len(stored.shape) > 1 and data["model_type"] in ("qwen2_moe", "qwen3_moe"):
            data[key] = stored.shape[-2]
    dtypes = Counter(tensor.dtype for tensor in tensors.values() if len(tensor.shape) > 1)
    data["torch_dtype"] = dtypes.most_common(1)[0][0] if dtypes else "float32"
    data.update(_rope_factors(file, data))


def _rope_factors(file: GgufFile, data: dict[str, Any]) -> dict[str, Any]:
    """RoPE's scaling where its factors are stored as tensors: of llama3's kind, or longrope's."""
    freqs, long, short = (_factors(file, name) for name in ROPE_FACTORS)
    if (long is None) != (short is None):
        raise UserError("only one of rope_factors_long and rope_factors_short is stored")
    if long is not None and short is not None:
        scaling: dict[str, Any] | None = {"rope_type": "longrope", "long_factor": long, "short_factor": short}
    else:
        scaling = llama3_scaling(freqs, data.get("rope_theta", 10000.0)) if freqs else None
    if scaling and "rope_scaling" in data:
        raise UserError("RoPE's scaling is given twice, as a key and as a tensor of factors")
    return {"rope_scaling": scaling} if scaling else {}


def _factors(file: GgufFile, name: str) -> list[float] | None:
    tensor = file.tensors.get(name)
    if tensor is None:
        return None
    if len(tensor.shape) != 1 or tensor.shape[0] > _MAX_FACTORS or tensor.kind.name != "F32":
        raise UserError(f"{name} of shape {list(tensor.shape)} and type {tensor.kind.name} is not a row of factors")
    with tensor.file.open("rb") as content:
        content.seek(tensor.start)
        factors = array("f", content.read(tensor.nbytes))
    if not all(0 < factor < 1e6 for factor in factors):
        raise UserError(f"{name} holds factors that are not positive numbers")
    return list(factors)
