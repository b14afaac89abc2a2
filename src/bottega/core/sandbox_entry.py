"""Inside the sandbox: started by `sandbox.py` as a program, with the standard library only.

Three processes: this one takes new namespaces, which hold for its children; the *first process*
of those clears up (when it ends, the kernel kills all others of its namespace); the *worker*
takes its limits and becomes the foreign code.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import stat
import struct
import sys
import time

# From <sched.h>, <sys/mount.h>, <linux/prctl.h>, <linux/landlock.h>.
CLONE_NEWNS, MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x00020000, 1, 32, 4096, 16384, 1 << 18
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x08000000, 0x10000000, 0x20000000, 0x40000000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
ACCESS_BITS = {1: 13, 2: 14, 3: 15, 4: 15}  # by version of landlock; 16 from 5 on
NOBODY = 65534
WITH_PACKAGES = """
import json, sys
sys.path += json.loads(sys.argv[1])
sys.argv = ["main.py"]
with open("main.py", encoding="utf-8") as file:
    exec(compile(file.read(), "main.py", "exec"))
"""

LINUX = sys.platform == "linux"
LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Set up, run the code, report, end."""
    settings = json.loads(sys.argv[1])
    if settings["become"] is not None and (not settings["bind"] or (LINUX and bind_folders(settings))):
        with contextlib.suppress(PermissionError):  # root without its capabilities
            os.setgroups([])
            os.setgid(settings["become"])
            os.setuid(settings["become"])
        if LINUX:
            LIBC.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # else the maps in /proc/self belong to root
    settings["counted"] = os.getuid() != 0  # the kernel does not hold root to RLIMIT_NPROC
    namespaces = LINUX and take_namespaces()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    launcher = os.getpid()
    first = os.fork()
    if first == 0:
        be_first(settings, namespaces, launcher)
    for descriptor in (0, 1, 2, settings["reports"]):
        os.close(descriptor)
    os.waitpid(first, 0)
    os._exit(0)


def bind_folders(settings: dict) -> bool:
    """Make folders that only root can reach reachable, read-only and in here alone; False if the kernel refuses."""
    if LIBC.unshare(CLONE_NEWNS) != 0 or not mount(None, "/", MS_REC | MS_PRIVATE):
        return False
    for folder, place in settings["bind"]:
        if not (mount(folder, place, MS_BIND) and mount(None, place, MS_BIND | MS_REMOUNT | MS_RDONLY)):
            return False
        settings["interpreter"] = moved(settings["interpreter"], folder, place)
        if moved(settings["library"], folder, place) != settings["library"]:
            # Where it was linked to look is shut: it would take another Python's library, or none.
            settings["environment"]["LD_LIBRARY_PATH"] = moved(settings["library"], folder, place)
        settings["packages"] = [moved(path, folder, place) for path in settings["packages"]]
        settings["readable"].append(place)
    return True


def mount(source: "str | None", target: str, flags: int) -> bool:
    """mount(2)."""
    return LIBC.mount(source and source.encode(), target.encode(), None, ctypes.c_ulong(flags), None) == 0


def moved(path: str, folder: str, place: str) -> str:
    """Where `path` is when `folder` is at `place`."""
    inside = path == folder or path.startswith(folder + "/")
    return place + path.removeprefix(folder) if inside else path


def take_namespaces() -> bool:
    """New user, network, process and IPC namespaces for the children; False if the kernel refuses."""
    user, group = os.geteuid(), os.getegid()
    if LIBC.unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC) != 0:
        return False
    # An ordinary user inside: what it executes has no capabilities, not even over the namespaces.
    for name, content in (("setgroups", "deny"), ("uid_map", f"{NOBODY} {user} 1"), ("gid_map", f"{NOBODY} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(content)
    return True


def be_first(settings: dict, namespaces: bool, launcher: int) -> None:
    """Start the worker, wait for it, kill what it left behind, report its status."""
    if LINUX:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if not namespaces and os.getppid() != launcher:
        os._exit(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # it stays pending, for wait_for
    worker = os.fork()
    if worker == 0:
        with contextlib.suppress(BaseException):
            be_worker(settings, namespaces)
        os._exit(126)
    if LINUX:
        LIBC.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # the worker may not look into this process
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    status = wait_for(worker)
    if not namespaces:
        kill_children()
    if status is not None:
        report(settings, {"status": status})
    os._exit(0)


def wait_for(worker: int) -> "int | None":
    """The worker's exit status (negative: a signal); None if a SIGTERM came first. Reaps whatever else ends."""
    while signal.SIGTERM not in signal.sigpending():
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended == worker:
            return os.waitstatus_to_exitcode(status)
        if ended == 0:
            time.sleep(0.005)
    return None


def kill_children() -> None:
    """Without a namespace: kill every descendant, in rounds, as the orphans of one round are children in the next."""
    for _ in range(1000):
        try:
            with open(f"/proc/self/task/{os.getpid()}/children") as file:
                children = [int(child) for child in file.read().split()]
        except OSError:
            children = []
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        try:
            while os.waitpid(-1, 0 if children else os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return


def be_worker(settings: dict, namespaces: bool) -> None:
    """Take the limits and become the foreign code; never returns."""
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    # In its own user namespace, and as nobody, only the sandbox's processes are counted: 3 are ours.
    limited = namespaces and settings["counted"]
    limits = {**settings["limits"], **({"RLIMIT_NPROC": settings["processes"] + 3} if limited else {})}
    for name, value in limits.items():
        with contextlib.suppress(ValueError, OSError, AttributeError):
            resource.setrlimit(getattr(resource, name), (value, value))
    landlock = False
    if LINUX:
        LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        with contextlib.suppress(OSError):
            landlock = restrict_files(settings["readable"] + settings["packages"], settings["folder"])
    report(settings, {"namespaces": namespaces, "landlock": landlock, "processes": limited})
    os.set_inheritable(settings["reports"], False)
    program = ["-c", WITH_PACKAGES, json.dumps(settings["packages"])] if settings["packages"] else ["main.py"]
    arguments = [settings["interpreter"], "-I", "-S", "-B", "-X", "utf8", *program]
    os.execve(arguments[0], arguments, settings["environment"])


def restrict_files(readable: list, folder: str) -> bool:
    """Allow reading below `readable` and everything below `folder`, nothing else; False without landlock."""
    version = LIBC.syscall(LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    everything = (1 << ACCESS_BITS.get(version, 16)) - 1
    rules = LIBC.syscall(LANDLOCK_CREATE, struct.pack("=Q", everything), ctypes.c_size_t(8), 0)
    if rules < 0:
        return False
    allowed = [(path, EXECUTE | READ_FILE | READ_DIR) for path in readable]
    allowed += [("/dev/null", READ_FILE | WRITE_FILE), ("/dev/urandom", READ_FILE), (folder, everything)]
    for path, access in allowed:
        with contextlib.suppress(FileNotFoundError, PermissionError):  # then it stays closed
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                access &= EXECUTE | READ_FILE | WRITE_FILE | TRUNCATE
            rule = struct.pack("=Qi", access & everything, descriptor)
            if LIBC.syscall(LANDLOCK_ADD, rules, 1, rule, 0) != 0:
                return False
            os.close(descriptor)
    return LIBC.syscall(LANDLOCK_RESTRICT, rules, 0) == 0


def report(settings: dict, what: dict) -> None:
    """One line of JSON to the parent."""
    os.write(settings["reports"], (json.dumps(what) + "\n").encode())


if __name__ == "__main__":
    main()
