"""What this machine is and how fast it is: facts from the system, rates from a short measurement.

Facts need no torch; they decide the precision (bfloat16 only where the processor computes in it,
as emulation is slower than float32). Rates (GEMM FLOP/s by precision, memory bandwidth) are what
plans divide their FLOPs and bytes by. Other work on the machine only ever makes a rate look lower,
so each is measured on several occasions, under half a second each, and the best is kept in
`$XDG_CACHE_HOME/bottega/machine.json`.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bottega.core.atomic import write_json
from bottega.core.errors import UserError
from bottega.core.plan import Check
from bottega.core.view import human_bytes

if TYPE_CHECKING:
    import torch

# Instruction sets that change what is fast (names of /proc/cpuinfo).
FLAGS = (
    *("avx2", "fma", "bmi2", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vbmi", "avx512_vbmi2"),
    *("avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "asimd", "bf16"),
)
NATIVE_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
OCCASIONS = 5  # on which rates are measured before they are taken as known
_PRODUCT = (2048, 512, 2048)  # rows, inner, columns: the shape of a small model's feed-forward
_SMALL_PRODUCT = (256, 256, 256)
_SECONDS_PER_RATE = 0.08
_measured_here: set[tuple[Path, str]] = set()
_BANDWIDTH_BYTES = 128 * 2**20  # larger than the caches of most machines


@dataclass(frozen=True)
class Machine:
    """Facts; sizes in bytes, None where the system does not tell."""

    cpu: str
    cores: int
    flags: tuple[str, ...]
    memory_total: int | None
    memory_available: int | None
    disk_free: int | None
    system: str
    python: str
    torch: str | None


@dataclass(frozen=True)
class Rates:
    """Measured rates: FLOP/s of matrix products on the CPU by precision, bytes/s of reading memory."""

    cpu: str
    torch: str
    threads: int
    float32: float
    bfloat16: float
    memory: float
    occasions: int = 1

    def best_with(self, other: Rates) -> Rates:
        """The higher of each rate."""
        best = {name: max(getattr(self, name), getattr(other, name)) for name in ("float32", "bfloat16", "memory")}
        return replace(self, **best, occasions=self.occasions + other.occasions)


def facts(folder: Path = Path()) -> Machine:
    """The machine, and the free disk where `folder` lies. Never fails, imports no torch."""
    name, flags = _cpu()
    total, available = _memory()
    system, python = platform.platform(), platform.python_version()
    return Machine(name, cores(), flags, total, available, disk_free(folder), system, python, _torch_version())


def disk_free(folder: Path) -> int | None:
    """Bytes free where `folder` lies or will lie; None if the system does not tell."""
    try:
        return shutil.disk_usage(next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())).free
    except OSError:
        return None


def cores() -> int:
    """Cores that this process may use: its affinity, and the quota of its control group."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, _, period = Path("/sys/fs/cgroup/cpu.max").read_text().partition(" ")
        count = min(count, max(1, round(int(quota) / int(period))))
    return count


def peak_memory_bytes() -> int:
    """The most memory that this process has held at once (resident set), in bytes."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def measure(*, threads: int | None = None, refresh: bool = False, cache: Path | None = None) -> Rates:
    """The rates at `threads` (default: torch's present number): those in `cache`, and until they have been
    measured on OCCASIONS occasions, or on `refresh`, one more measurement. A process measures once, and
    does not load torch for one more: that is left to those that compute.
    """
    cache = cache or cache_path()
    threads = threads or _present_threads()
    cpu, flags = _cpu()
    key = f"{cpu} {' '.join(flags)} | torch {_torch_version()} | {threads} threads"
    known, before = _read_cache(cache), None
    with contextlib.suppress(TypeError):
        before = Rates(**known[key]) if key in known else None
    enough = before and (before.occasions >= OCCASIONS or (cache, key) in _measured_here or not _torch_is_loaded())
    if before and enough and not refresh:
        return before
    rates = _measure(cpu, threads)
    rates = rates.best_with(before) if before else rates
    _measured_here.add((cache, key))
    with contextlib.suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_json(cache, {**known, key: asdict(rates)})
    return rates


def _measure(cpu: str, threads: int) -> Rates:
    import torch

    present = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        products = _product_rate(torch.float32), _product_rate(torch.bfloat16)
        return Rates(cpu, str(torch.__version__), threads, *products, _bandwidth())
    finally:
        torch.set_num_threads(present)


def _torch_is_loaded() -> bool:
    return "torch" in sys.modules


def _present_threads() -> int:
    """The threads that torch computes with now, or will once a verb has set them."""
    if not _torch_is_loaded():
        return resolve_threads(None)
    import torch

    return torch.get_num_threads()


def cache_path() -> Path:
    """Where rates are kept: `$XDG_CACHE_HOME/bottega/machine.json`, else below `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path(os.path.expanduser("~/.cache"))) / "bottega" / "machine.json"  # noqa: PTH111


def instruction_flags() -> frozenset[str]:
    """Those of FLAGS that this processor has."""
    return frozenset(_cpu()[1])


def preferred_dtype() -> Literal["bfloat16", "float32"]:
    """bfloat16 where this CPU has instructions for it. It must not hang on a measurement: it decides results."""
    return "bfloat16" if NATIVE_BFLOAT16 & instruction_flags() else "float32"


def resolve_device(name: str) -> str:
    """ "auto" → "cuda", "mps" or "cpu"; raises UserError for one that is not there."""
    if name == "cpu" or (name == "auto" and not _torch_is_loaded() and _is_cpu_alone()):
        return "cpu"
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next((device for device, there in present.items() if there), "cpu")
    if name not in present:
        raise UserError(f"unknown device {name!r}", hint="Known: auto, cpu, cuda, mps.")
    if not present[name]:
        raise UserError(
            f"device {name!r} is not usable with this torch ({torch.__version__})", hint="Use --device cpu."
        )
    return name


def _is_cpu_alone() -> bool:
    """Whether torch can surely use nothing but the CPU, told without loading it: by its build, or without a driver."""
    found = importlib.util.find_spec("torch")
    if platform.system() != "Linux" or found is None or found.origin is None:
        return False
    try:
        build = Path(found.origin).with_name("version.py").read_text("utf-8")
    except OSError:
        return False
    none = {match[1] for match in re.finditer(r"^(cuda|hip)\b[^=\n]*= None$", build, re.MULTILINE)}
    if "hip" not in none:
        return False
    if "cuda" not in none:
        with contextlib.suppress(OSError):
            ctypes.CDLL("libcuda.so.1")
            return False
    return True


def resolve_dtype(name: str, device: str = "cpu") -> str:
    """ "auto" → the precision that is fast on `device` ("cpu", "cuda", "mps"); another name stays."""
    if name != "auto":
        return name
    if device == "cpu":
        return preferred_dtype()
    import torch

    return "bfloat16" if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "float32"


def inference_dtype(stored: str, device: str) -> str:
    """The precision to compute in: the stored one where the machine is fast with it, else float32.

    float32 and float16 weights are never narrowed to bfloat16 unless the user asks.
    """
    if device == "cpu":
        return "bfloat16" if stored == "bfloat16" and preferred_dtype() == "bfloat16" else "float32"
    return stored


def resolve_threads(threads: int | None) -> int:
    """The number of CPU threads to use: `threads`, OMP_NUM_THREADS, or as many as there are cores."""
    if threads is not None:
        if threads < 1:
            raise UserError(f"threads must be at least 1, not {threads}")
        return threads
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) > 0 else cores()


def inference_threads(threads: int | None) -> int:
    """The number of CPU threads to generate with: one less than there are cores where others keep the machine busy.

    A step is many short products, and the slowest thread ends each: with a thread on a core that others use too, all
    wait for it.
    """
    wanted = resolve_threads(threads)
    if threads is not None or os.environ.get("OMP_NUM_THREADS") or wanted == 1:
        return wanted
    with contextlib.suppress(OSError, AttributeError):
        return max(1, wanted - 1) if os.getloadavg()[0] > cores() - 0.5 else wanted
    return wanted


def _cpu() -> tuple[str, tuple[str, ...]]:
    name, flags = "", ()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and not name:
                name = value.strip()
            elif key.strip() in ("flags", "Features") and not flags:
                present = set(value.split())
                flags = tuple(flag for flag in FLAGS if flag in present)
    return name or platform.processor() or platform.machine() or "unknown", flags


def _memory() -> tuple[int | None, int | None]:
    """Total and available bytes, within the limit of the control group (containers)."""
    amounts: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            key, _, value = line.partition(":")
            amounts[key] = int(value.split()[0]) * 1024
    total, available = amounts.get("MemTotal"), amounts.get("MemAvailable")
    if total is None:
        with contextlib.suppress(ValueError, OSError):
            total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return total, available
    with contextlib.suppress(OSError, ValueError):
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        total, available = min(total, limit), min(available or limit, max(0, limit - used))
    return total, available


def _torch_version() -> str | None:
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None


def _read_cache(path: Path) -> dict[str, dict]:
    try:
        known = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in known.items() if isinstance(v, dict)} if isinstance(known, dict) else {}


def _product_rate(dtype: torch.dtype) -> float:
    """FLOP/s of matrix products: the best of several, as other work on the machine only ever slows one down."""
    import torch

    def product(sizes: tuple[int, int, int]) -> Callable[[], object]:
        rows, inner, columns = sizes
        left, right = torch.ones(rows, inner, dtype=dtype), torch.ones(inner, columns, dtype=dtype)
        return lambda: left @ right

    def flops(sizes: tuple[int, int, int]) -> int:
        return 2 * sizes[0] * sizes[1] * sizes[2]

    with torch.inference_mode():
        # A machine that emulates the precision may need seconds for the large product.
        rate = flops(_SMALL_PRODUCT) / _best_seconds(product(_SMALL_PRODUCT), _SECONDS_PER_RATE / 10)
        if flops(_PRODUCT) / rate > _SECONDS_PER_RATE:
            return rate
        return flops(_PRODUCT) / _best_seconds(product(_PRODUCT), _SECONDS_PER_RATE)


def _bandwidth() -> float:
    import torch

    block = torch.ones(_BANDWIDTH_BYTES // 4)
    with torch.inference_mode():
        return _BANDWIDTH_BYTES / _best_seconds(block.sum, _SECONDS_PER_RATE / 2)


def _best_seconds(work: Callable[[], object], budget: float) -> float:
    """The shortest run within about `budget` seconds, at least two (the first one warms up)."""
    work()
    best, started = float("inf"), time.perf_counter()
    while best == float("inf") or time.perf_counter() - started < budget:
        clock = time.perf_counter()
        work()
        best = min(best, max(time.perf_counter() - clock, 1e-9))
    return best


def memory_check(needed: int) -> Check:
    """Whether so many bytes fit the memory that is free now."""
    available = facts().memory_available
    if available is None:
        return Check("memory", True, f"needs about {human_bytes(needed)}")
    return Check("memory", needed < available, f"needs about {human_bytes(needed)}, {human_bytes(available)} are free")
