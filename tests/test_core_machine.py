"""Facts, rates and what follows from them."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bottega.core import doctor, machine
from bottega.core.errors import UserError
from bottega.core.machine import Rates
from bottega.core.plan import Specs
from bottega.core.progress import Quiet
from bottega.core.verb import Context

RATES = Rates("cpu", "2.0", 2, float32=100e9, bfloat16=250e9, memory=20e9)


def test_facts_need_no_torch():
    code = "import sys; from bottega.core.machine import facts; print(facts().cores); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert int(done.stdout) == machine.cores() >= 1


def test_facts_are_plausible(tmp_path: Path):
    found = machine.facts(tmp_path / "not" / "there" / "yet")
    assert found.cpu and found.python == sys.version.split()[0] and found.torch == torch.__version__
    assert found.disk_free is not None and found.disk_free > 0
    if sys.platform == "linux":
        assert found.memory_total is not None and found.memory_available is not None
        assert 0 < found.memory_available <= found.memory_total


def test_without_proc(monkeypatch: pytest.MonkeyPatch):
    def missing(self: Path, *args: object, **kwargs: object) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", missing)
    found = machine.facts()
    assert found.cpu and found.flags == () and found.memory_available is None
    assert machine.peak_memory_bytes() > 1 << 20


def test_peak_memory_grows_with_what_is_held():
    before = machine.peak_memory_bytes()
    block = bytearray(before + (64 << 20))  # larger than the peak so far
    block[:: 1 << 12] = b"1" * len(block[:: 1 << 12])
    assert machine.peak_memory_bytes() >= before + (32 << 20)


def test_measure_and_its_cache(tmp_path: Path):
    cache = tmp_path / "deep" / "machine.json"
    rates = machine.measure(cache=cache)
    assert rates.float32 > 1e8 and rates.bfloat16 > 1e7 and rates.memory > 1e8
    assert rates.threads == torch.get_num_threads()
    assert machine.measure(cache=cache) == rates  # to the last digit: it was not measured again
    content = json.loads(cache.read_text())
    (key,) = content
    content[key]["float32"] = 1.0
    cache.write_text(json.dumps(content))
    assert machine.measure(cache=cache).float32 == 1.0
    assert machine.measure(cache=cache).occasions == 1
    assert machine.measure(cache=cache, refresh=True).float32 > 1e8


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": 1}', b"\xff"])
def test_a_damaged_cache_is_replaced(tmp_path: Path, content: bytes):
    cache = tmp_path / "machine.json"
    cache.write_bytes(content)
    rates = machine.measure(cache=cache)
    assert machine.measure(cache=cache) == rates


def test_a_cache_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert machine.measure(cache=tmp_path / "file" / "machine.json").float32 > 0


def test_cache_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert machine.cache_path() == tmp_path / "bottega" / "machine.json"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert machine.cache_path() == tmp_path / ".cache" / "bottega" / "machine.json"


@pytest.mark.parametrize(
    ("flags", "dtype"), [(("avx2",), "float32"), (("avx512f", "avx512_bf16"), "bfloat16"), (("amx_bf16",), "bfloat16")]
)
def test_preferred_dtype(monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], dtype: str):
    monkeypatch.setattr(machine, "_cpu", lambda: ("cpu", flags))
    assert machine.preferred_dtype() == dtype


def test_the_best_of_several_occasions_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cache = tmp_path / "machine.json"
    for occasion, rate in enumerate((5e9, 9e9, 7e9, 1e9, 2e9, 99e9), start=1):
        monkeypatch.setattr(machine, "_product_rate", lambda dtype, rate=rate: rate)
        monkeypatch.setattr(machine, "_measured_here", set())
        rates = machine.measure(cache=cache)
        assert rates.occasions == min(occasion, machine.OCCASIONS)
    assert rates.float32 == 9e9  # by the sixth time it is known, and not measured


@pytest.mark.parametrize(
    ("cuda", "hip", "driver", "alone"),
    [
        ("None", "None", False, True),
        ("None", "None", True, True),
        ("'13.0'", "None", False, True),
        ("'13.0'", "None", True, False),
        ("None", "'7.0'", False, False),
    ],
)
def test_a_machine_without_accelerator_is_known_without_torch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cuda: str, hip: str, driver: bool, alone: bool
):
    def load(name: str) -> None:
        if not driver:
            raise OSError(name)

    (tmp_path / "version.py").write_text(f"cuda: Optional[str] = {cuda}\nhip: Optional[str] = {hip}\n")
    found = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: found)
    monkeypatch.setattr(machine.ctypes, "CDLL", load)
    monkeypatch.setattr(machine.platform, "system", lambda: "Linux")
    assert machine._is_cpu_alone() == alone
    monkeypatch.setattr(machine.platform, "system", lambda: "Darwin")
    assert not machine._is_cpu_alone()
    (tmp_path / "version.py").unlink()
    assert not machine._is_cpu_alone()


def test_known_rates_are_taken_without_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    cache = tmp_path / "machine.json"
    rates = machine.measure(cache=cache, threads=1)
    monkeypatch.setattr(machine, "_measured_here", set())  # as in a new process
    monkeypatch.setattr(machine, "_torch_is_loaded", lambda: False)
    monkeypatch.setattr(machine, "_measure", lambda *_: pytest.fail("measured again"))
    assert machine.measure(cache=cache, threads=1) == rates and rates.occasions == 1


def test_resolve(monkeypatch: pytest.MonkeyPatch):
    assert machine.resolve_device("cpu") == "cpu"
    assert machine.resolve_device("auto") in ("cpu", "cuda", "mps")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="'cuda' is not usable"):
            machine.resolve_device("cuda")
    with pytest.raises(UserError, match="unknown device"):
        machine.resolve_device("tpu")
    assert machine.resolve_dtype("float16", "cpu") == "float16"
    assert machine.resolve_threads(3) == 3
    with pytest.raises(UserError):
        machine.resolve_threads(0)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert machine.resolve_threads(None) == 5
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert machine.resolve_threads(None) == machine.cores()


def test_doctor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    threads = torch.get_num_threads()
    plan = doctor.plan_doctor(doctor.Doctor(), Specs())
    result = doctor.run_doctor(plan, Context(Quiet()))
    torch.set_num_threads(threads)
    assert json.loads(json.dumps(result.data))["rates"]["float32"] > 0
    assert result.data["dtype"] in ("float32", "bfloat16") and result.data["packages"]["huggingface_hub"]
    assert machine.cache_path().exists() and len(result.view) >= 3


def test_advice():
    here = machine.facts()
    emulates, native = replace(here, flags=("avx2",)), replace(here, flags=("avx512_bf16",))
    said = doctor.advice(emulates, replace(RATES, bfloat16=30e9))
    assert "bfloat16 is emulated here: 30 vs 100 GFLOP/s in float32, so float32 is used." in said
    assert any("2.5 times as fast" in line for line in doctor.advice(native, RATES))
    poor = replace(here, memory_available=1 << 30, disk_free=1 << 30, torch=None)
    said = " ".join(doctor.advice(poor, None))
    assert "pip install torch" in said and "1.0 GiB of memory" in said and "1.0 GiB of disk" in said
