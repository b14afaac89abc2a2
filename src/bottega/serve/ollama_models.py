"""Ollama's routes that only look: /api/tags, /api/ps, /api/show and /api/version."""

from __future__ import annotations

import hashlib
from importlib import metadata
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from bottega.checkpoint.gguf import GGUF_SUFFIX
from bottega.serve.failures import ApiError
from bottega.serve.models import Known, Models
from bottega.serve.ollama import plain_name
from bottega.serve.ollama_answers import timestamp
from bottega.serve.protocol.ollama import ShowRequest

NEVER = "9999-12-31T23:59:59Z"


def ollama_models_routes(models: Models) -> APIRouter:
    """The router."""
    router = APIRouter()

    @router.get("/api/version", response_model=None)
    async def version() -> Response:
        return JSONResponse({"version": metadata.version("bottega")})

    @router.get("/api/tags", response_model=None)
    async def tags() -> Response:
        return JSONResponse({"models": [_entry(known) | {"modified_at": _modified(known)} for known in models.known()]})

    @router.get("/api/ps", response_model=None)
    async def loaded() -> Response:
        return JSONResponse({"models": [_running(known) for known in models.known() if known.is_loaded]})

    @router.post("/api/show", response_model=None)
    async def show(body: ShowRequest) -> Response:
        name = plain_name(body.model)
        known = next((known for known in models.known() if known.name == name), None)
        if known is None:
            models.card(name)  # an adapter as base:name, or the refusal that lists what is there
            known = next(known for known in models.known() if known.name == name.partition(":")[2])
        return JSONResponse(_shown(known))

    return router


def _entry(known: Known) -> dict[str, Any]:
    name = known.name if ":" in known.name else f"{known.name}:latest"
    return {
        "name": name,
        "model": name,
        "size": known.spec.nbytes,
        "digest": _digest(known),
        "details": _details(known),
    }


def _running(known: Known) -> dict[str, Any]:
    return _entry(known) | {
        "expires_at": NEVER if known.expires is None else timestamp(known.expires),
        "size_vram": known.spec.nbytes if known.on_gpu else 0,
        "context_length": known.context_length,
    }


def _details(known: Known) -> dict[str, Any]:
    dtypes = {info.dtype for info in known.spec.tensors.values()}
    stored = known.spec.quantised or "+".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
    family = known.spec.config.model_type
    return {
        "parent_model": known.parent or "",
        "format": "gguf" if known.path.suffix == GGUF_SUFFIX else "safetensors",
        "family": family,
        "families": [family],
        "parameter_size": _count(known.spec.config.parameter_count()),
        "quantization_level": stored.upper(),
    }


def _shown(known: Known) -> dict[str, Any]:
    config, template = known.spec.config, known.spec.template
    family = config.model_type
    return {
        "modified_at": _modified(known),
        "details": _details(known),
        "template": template or "",
        "license": known.spec.licence or "",
        "capabilities": ["completion", *(["tools"] if template and "tools" in template else [])],
        "model_info": {
            "general.architecture": family,
            "general.parameter_count": config.parameter_count(),
            f"{family}.context_length": known.context_length,
            f"{family}.embedding_length": config.hidden_size,
            f"{family}.block_count": config.num_hidden_layers,
            f"{family}.feed_forward_length": config.intermediate_size,
            f"{family}.attention.head_count": config.num_attention_heads,
            f"{family}.attention.head_count_kv": config.num_key_value_heads,
            f"{family}.vocab_size": config.vocab_size,
        },
    }


def _digest(known: Known) -> str:
    """Of what the headers say, not of the weights: it changes when the model is another one."""
    spec = known.spec
    tensors = sorted((name, str(info)) for name, info in spec.tensors.items())
    parts = (known.name, spec.config, spec.tokenizer_hash, spec.template, tensors, _modified(known))
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _modified(known: Known) -> str:
    try:
        return timestamp(known.path.stat().st_mtime)
    except OSError:
        raise ApiError(404, f"The files of {known.name!r} are not there any more.", code="model_not_found") from None


def _count(parameters: int) -> str:
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if parameters >= size:
            return f"{parameters / size:.1f}{letter}"
    return str(parameters)
