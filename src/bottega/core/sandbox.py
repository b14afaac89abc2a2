"""The one place where foreign code runs: Python that a model or a learner wrote.

The code runs in its own process, session and temporary folder, with an empty environment and
without site-packages (unless `packages` asks for them, to be read only); memory, CPU time, open
files, file size and (where the kernel counts them for it alone) processes are limited, output is
cut, and when it is over, every process it started is killed. On Linux it has namespaces of its
own, in which there is no network and no other process (namespaces(7)), and may read only the
interpreter and its folder and write only the latter (landlock(7)). What the kernel refused is said
in the result: a caller that needs a guarantee checks the flags.

Where the caller is root, the code runs as nobody: root's files are open to root, and root's
processes are not counted. A Python or a package that only root can reach is mounted, read-only, where
nobody can. `sandbox_entry.py` is the program that sets this up from the inside.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from bottega.core.errors import BottegaError

NOBODY = 65534
MAX_OUTPUT_BYTES = 1 << 20
MAX_FILE_BYTES = 64 << 20
MAX_OPEN_FILES = 64
_GRACE_SECONDS = 1.0
# What numerical packages ask for: the machine's processors, time zones, fonts.
_PACKAGE_FILES = ("/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu", "/usr/share/fonts", "/etc/fonts")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_ENTRY = Path(__file__).with_name("sandbox_entry.py")


@dataclass(frozen=True)
class SandboxResult:
    """What the code wrote and how it ended.

    `exit_status` is negative for a signal (as in subprocess) and None if the code was stopped
    from outside: because time was up (`timed_out`) or it wrote too much (`output_cut`).
    The `…_isolated` and `…_limited` flags say what the kernel granted.
    """

    stdout: str
    stderr: str
    exit_status: int | None
    timed_out: bool
    output_cut: bool
    seconds: float
    network_isolated: bool
    files_isolated: bool
    processes_isolated: bool
    processes_limited: bool

    @property
    def ok(self) -> bool:
        """Whether the code ended by itself, with status 0."""
        return self.exit_status == 0


@dataclass
class _Streams:
    """The child's pipes: what is still to be written, what was read."""

    to_write: bytes
    limit: int
    read: dict[str, bytearray] = field(default_factory=lambda: {"stdout": bytearray(), "stderr": bytearray()})
    cut: bool = False

    def pump(self, process: subprocess.Popen[bytes], deadline: float) -> bool:
        """Write and read until both outputs are closed; False if `deadline` came, or too much was written, first."""
        with selectors.DefaultSelector() as selector:
            for name in self.read:
                selector.register(_pipe(process, name), selectors.EVENT_READ, name)
            selector.register(_pipe(process, "stdin"), selectors.EVENT_WRITE, "stdin")
            while any(key.data != "stdin" for key in selector.get_map().values()):
                left = deadline - time.monotonic()
                if left <= 0 or self.cut:
                    return False
                for key, _ in selector.select(min(left, 0.2)):
                    pipe = _pipe(process, key.data)
                    if not (self._write(pipe) if key.data == "stdin" else self._read(pipe, key.data)):
                        selector.unregister(pipe)
                        pipe.close()
        return True

    def _write(self, pipe: IO[bytes]) -> bool:
        if self.to_write:
            try:
                self.to_write = self.to_write[os.write(pipe.fileno(), self.to_write[:4096]) :]
            except BrokenPipeError:
                return False
        return bool(self.to_write)

    def _read(self, pipe: IO[bytes], name: str) -> bool:
        block = os.read(pipe.fileno(), 1 << 16)
        room = self.limit - len(self.read[name])
        self.read[name] += block[:room]
        self.cut = self.cut or len(block) > room
        return bool(block)


def run_python(
    code: str,
    *,
    timeout: float = 10.0,
    memory_bytes: int = 512 << 20,
    stdin: str = "",
    files: Mapping[str, str | bytes] | None = None,
    processes: int = 16,
    max_output_bytes: int = MAX_OUTPUT_BYTES,
    packages: bool = False,
) -> SandboxResult:
    """Run `code` as a program of its own and wait for it, at most `timeout` seconds (plus one to clear up).

    Args:
        code: Python source; it becomes `main.py` in an empty folder, its working directory.
        timeout: seconds of wall-clock time for everything.
        memory_bytes: address space of each process of it.
        stdin: what it can read from its standard input.
        files: further files in its folder, by relative path.
        processes: how many processes and threads it may have at once.
        max_output_bytes: of standard output, and of standard error; it is stopped when it writes more.
        packages: let it import, and so read, what this environment has installed, and bottega. NumPy needs about
            1 GiB of address space, torch 4.

    Raises:
        BottegaError: if a file's name leads out of the folder, or no process can be started.
    """
    with contextlib.ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="bottega-sandbox-", ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(temporary)).resolve()
        settings = {
            "folder": str(folder),
            "interpreter": os.path.realpath(sys.executable),
            "readable": [*_readable(), *(_PACKAGE_FILES if packages else ())],
            "library": os.path.realpath(sysconfig.get_config_var("LIBDIR") or ""),
            "packages": _package_folders() if packages else [],
            "environment": _package_environment(folder) if packages else {},
            "become": NOBODY if os.geteuid() == 0 else None,
            "bind": [],
            "processes": processes,
            "limits": {
                "RLIMIT_AS": memory_bytes,
                "RLIMIT_CPU": int(timeout) + 2,
                "RLIMIT_FSIZE": MAX_FILE_BYTES,
                "RLIMIT_NOFILE": MAX_OPEN_FILES,
                "RLIMIT_CORE": 0,
            },
        }
        if settings["become"] is not None:
            closed = [each for each in settings["packages"] if not _reachable(each)]
            if not (_reachable(settings["interpreter"]) and _reachable(sysconfig.get_path("stdlib"))):
                closed.append(os.path.realpath(sys.base_prefix))
            settings["bind"] = [(each, stack.enter_context(_mount_point())) for each in closed]
        _fill(folder, {**(files or {}), "main.py": code}, settings["become"])
        return _supervise(settings, timeout, _Streams(stdin.encode("utf-8"), max_output_bytes))


def _supervise(settings: dict, timeout: float, streams: _Streams) -> SandboxResult:
    reports_in, reports_out = os.pipe()
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            [settings["interpreter"], "-I", "-S", str(_ENTRY), json.dumps({**settings, "reports": reports_out})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=settings["folder"],
            env={},
            pass_fds=(reports_out,),
            start_new_session=True,
        )
    except OSError as error:
        os.close(reports_in)
        raise BottegaError(f"the sandbox cannot start {settings['interpreter']}: {error}") from None
    finally:
        os.close(reports_out)
    try:
        ended = streams.pump(process, started + timeout)
        if ended:
            # It may have closed its outputs and still be running.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, started + timeout - time.monotonic()))
                ended = process.returncode is not None
            ended = process.returncode is not None
    finally:
        _stop(process)
        report = _read_report(reports_in)
    return SandboxResult(
        stdout=streams.read["stdout"].decode("utf-8", "replace"),
        stderr=streams.read["stderr"].decode("utf-8", "replace"),
        exit_status=report.get("status") if ended else None,
        timed_out=not ended and not streams.cut,
        output_cut=streams.cut,
        seconds=time.monotonic() - started,
        network_isolated=bool(report.get("namespaces")),
        files_isolated=bool(report.get("landlock")),
        processes_isolated=bool(report.get("namespaces")),
        processes_limited=bool(report.get("processes")),
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End everything: the entry's first process kills what it started when it gets SIGTERM, then itself."""
    for signal_, seconds in ((signal.SIGTERM, _GRACE_SECONDS), (signal.SIGKILL, None)):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal_)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _read_report(descriptor: int) -> dict:
    """What the entry reported: lines of JSON, merged. Without waiting, should a process still hold the other end."""
    os.set_blocking(descriptor, False)
    with contextlib.suppress(BlockingIOError), os.fdopen(descriptor, "rb", buffering=0) as file:
        merged: dict = {}
        for line in (file.read(1 << 16) or b"").splitlines():
            merged.update(json.loads(line))
        return merged
    return {}


def _pipe(process: subprocess.Popen[bytes], name: str) -> IO[bytes]:
    pipe: IO[bytes] | None = getattr(process, name)
    assert pipe is not None  # all three are pipes, see _supervise
    return pipe


def _fill(folder: Path, files: Mapping[str, str | bytes], owner: int | None) -> None:
    for name, content in files.items():
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts:
            raise BottegaError(f"{name!r} is not a path inside the sandbox")
        path = folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    if owner is not None:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, owner, owner)


def _readable() -> list[str]:
    """What Python needs to run: itself, its library, the system's libraries."""
    library = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), sysconfig.get_config_var("LIBDIR")]
    system = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo"]
    own = [sys.executable, *(path for path in library if path)]
    return [*dict.fromkeys(os.path.realpath(path) for path in own), *system]


def _package_folders() -> list[str]:
    """Where this process imports from, beside the standard library; and where bottega lies."""
    installed = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    own = str(Path(__file__).resolve().parents[2])
    return [path for path in dict.fromkeys(map(os.path.realpath, (*installed, own))) if Path(path).is_dir()]


def _package_environment(folder: Path) -> dict[str, str]:
    """One thread each, so that a figure does not depend on the machine; caches and drawings in the folder."""
    places = dict.fromkeys(("HOME", "TMPDIR", "MPLCONFIGDIR"), str(folder))
    return {**dict.fromkeys(_THREADS, "1"), **places, "MPLBACKEND": "Agg", "JOBLIB_MULTIPROCESSING": "0"}


def _reachable(path: str) -> bool:
    """Whether any user may come to what lies at `path`."""
    return all(parent.stat().st_mode & 0o001 for parent in Path(path).resolve().parents)


@contextlib.contextmanager
def _mount_point() -> Iterator[str]:
    """An empty folder for a mount that only the sandbox sees. Removed as what it is, an empty folder."""
    folder = Path(tempfile.mkdtemp(prefix="bottega-python-"))
    folder.chmod(0o755)
    try:
        yield str(folder)
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()
