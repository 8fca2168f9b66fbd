"""Everything that depends on the operating system, each with a plain fallback; only Linux is tested."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
from pathlib import Path
from threading import Thread, Timer
from typing import IO, Any

CPUINFO = Path("/proc/cpuinfo")
ALARM_EXIT_CODE = 142
"""Exit code of a process whose alarm rang, on systems without signals; shells give it to SIGALRM."""

OPENER_SECONDS = 5.0
"""How long the desktop's opener may take to say that it found no program."""

BLAS_THREADS = "OPENBLAS_NUM_THREADS"
"""Environment variable that says how many threads a matrix product of NumPy takes."""

_alarms: list[Timer] = []
"""The alarm that is set, on systems without signals."""


def usable_cpus() -> list[int]:
    """Returns the numbers of the logical processors that this process may run on."""
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def one_thread_a_product() -> None:
    """Lets matrix products of NumPy take one thread each in this process and its children, unless the user has set it.

    NumPy reads the environment when it is imported. The threads of OpenBLAS 0.3.31, which NumPy 2.4 brings, were seen
    to wait for each other for ever on a busy machine; what is worth several threads runs in threads of our own.
    """
    os.environ.setdefault(BLAS_THREADS, "1")


def physical_cores() -> int:
    """Returns the number of physical cores that this process may run on; two hyper-threads of a core count once."""
    cores = set()
    for number in usable_cpus():
        siblings = Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list")
        cores.add(siblings.read_text(encoding="ascii") if siblings.exists() else str(number))
    return len(cores)


def processor_facts(cpuinfo: Path = CPUINFO) -> dict[str, str]:
    """Returns Linux's facts about the first processor, such as its "model name" and "flags"; {} on other systems."""
    try:
        first, _, _ = cpuinfo.read_text(encoding="utf-8").partition("\n\n")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def memory_bytes() -> int | None:
    """Returns the size of the machine's memory, None where the system does not tell."""
    if sys.platform == "win32":
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak_memory_bytes() -> int | None:
    """Returns the most memory that this process held at a time, None where the system does not tell.

    `ru_maxrss` is no substitute: in a new process it counts the memory of the one that started it.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def limit_memory(size_bytes: int) -> None:
    """Refuses this process more memory than that from now on: what asks for more fails. Does nothing outside Linux."""
    if sys.platform == "linux":
        import resource

        # Memory that can be written and is the process's own; not the libraries and files that it maps.
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        size_bytes = size_bytes if most == resource.RLIM_INFINITY else min(size_bytes, most)
        resource.setrlimit(resource.RLIMIT_DATA, (size_bytes, most))


def memory_limit_bytes() -> int | None:
    """Returns the limit that `limit_memory` or the system has set for this process, None where there is none."""
    if sys.platform == "linux":
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
        return None if limit == resource.RLIM_INFINITY else limit
    return None


def load_average() -> float | None:
    """Returns the number of busy processes, averaged over a minute; None where the system does not tell."""
    if sys.platform == "win32":
        return None
    return os.getloadavg()[0]


def may_read(path: str | os.PathLike[str]) -> bool:
    """Returns whether a file or the names in a folder may be read."""
    return _is_allowed(path, os.R_OK)


def may_enter(folder: str | os.PathLike[str]) -> bool:
    """Returns whether the files in a folder may be reached."""
    return _is_allowed(folder, os.X_OK)


def _is_allowed(path: str | os.PathLike[str], mode: int) -> bool:
    """Asks for the user that the process acts as, where the system tells that user from the one who started it."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def has_desktop() -> bool:
    """Returns whether there is a desktop on which a window could open."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def open_in_desktop(path: Path) -> None:
    """Opens a file in the program that the desktop has for it, and does not wait for that; no shell is involved.

    Raises:
        OSError: There is no desktop, or nothing that opens the file.
    """
    if not has_desktop():
        raise OSError(errno.ENODEV, "there is no desktop here")
    if sys.platform == "win32":
        os.startfile(path.absolute())  # noqa: S606
        return
    import subprocess  # a command that starts need not wait for it

    opener = "open" if sys.platform == "darwin" else "xdg-open"
    nowhere = subprocess.DEVNULL
    # An absolute path is not taken for an option.
    command = [opener, str(path.absolute())]
    process = subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True)
    try:
        exit_code = process.wait(OPENER_SECONDS)
    except subprocess.TimeoutExpired:  # some openers are the program itself
        Thread(target=process.wait, daemon=True).start()
        return
    if exit_code:
        raise OSError(errno.ENOENT, f"{opener} found no program for it")


def lock(file: IO[Any]) -> None:
    """Takes the sole right to write an open file; the system gives it back when the file is closed.

    Raises:
        OSError: Another process has it.
    """
    if sys.platform == "win32":
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_ours(file: IO[Any]) -> bool:
    """Takes the sole right to write an open file, as `lock` does, where the file system knows such a right.

    Returns:
        False if another process has it.
    """
    try:
        lock(file)
    except (BlockingIOError, PermissionError):  # the latter on Windows
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    return True


def reserve(file: IO[Any], size_bytes: int) -> None:
    """Takes disk space for a file, so that writing to it cannot find the disk full; does nothing outside Linux.

    Raises:
        OSError: The disk has no room.
    """
    if sys.platform == "linux":
        os.posix_fallocate(file.fileno(), 0, size_bytes)


def set_alarm(seconds: float) -> None:
    """Ends this process after so many seconds, even inside a library's code; 0 calls the alarm off.

    A later call replaces the alarm.
    """
    if sys.platform == "win32":
        while _alarms:
            _alarms.pop().cancel()
        if seconds:
            _alarms.append(Timer(seconds, os._exit, [ALARM_EXIT_CODE]))
            _alarms[0].daemon = True
            _alarms[0].start()
    else:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def ended_by_alarm(exit_code: int) -> bool:
    """Returns whether a process ended because its alarm rang."""
    if sys.platform == "win32":
        return exit_code == ALARM_EXIT_CODE
    return exit_code == -signal.SIGALRM


def ended_by_filter(exit_code: int) -> bool:
    """Returns whether a process ended because it made a system call that its filter forbids."""
    return sys.platform == "linux" and exit_code == -signal.SIGSYS


def ended_by_kill(exit_code: int) -> bool:
    """Returns whether a process was killed: by us, or by the system that ran out of memory."""
    if sys.platform == "win32":
        return False
    return exit_code == -signal.SIGKILL


def cause_of_death(exit_code: int) -> str:
    """Returns the name of the signal that ended a process, such as "SIGSEGV", or "exit code 1"."""
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"exit code {exit_code}"


def new_group() -> dict[str, Any]:
    """Returns options of `subprocess.Popen` for a process that Ctrl-C in the terminal does not reach."""
    if sys.platform == "win32":
        import subprocess

        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def widen_pipe(file: int, size_bytes: int) -> None:
    """Lets a pipe hold more, so that its ends wait less for each other; does nothing where that is not allowed."""
    if sys.platform == "linux":
        import fcntl

        try:
            fcntl.fcntl(file, fcntl.F_SETPIPE_SZ, size_bytes)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EBUSY):
                raise


def memory_file(name: str) -> int:
    """Opens a file that is in no folder, on Linux; returns its descriptor.

    Raises:
        OSError: The system has no such files.
    """
    if sys.platform == "linux":
        return os.memfd_create(name)
    raise OSError(errno.ENOSYS, "this system has no files in memory")


def read_at(file: int, size_bytes: int, place: int) -> bytes:
    """Reads up to so many bytes of an open file from a place on; where the system can, its own place stays."""
    if sys.platform == "win32":
        os.lseek(file, place, os.SEEK_SET)
        return os.read(file, size_bytes)
    return os.pread(file, size_bytes, place)


def open_to_read(path: str | os.PathLike[str]) -> int:
    """Opens a file to be read, without waiting for a writer and for this process alone; returns its descriptor."""
    if sys.platform == "win32":
        return os.open(path, os.O_RDONLY | os.O_BINARY | os.O_NOINHERIT)
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def send_file(connection: socket.socket, file: int) -> None:
    """Gives the process at the other end of a connection an open file.

    Raises:
        OSError: The system cannot, or the connection is gone.
    """
    if sys.platform == "win32":
        raise OSError(errno.ENOSYS, "this system passes no open files on")
    socket.send_fds(connection, [b"\0"], [file])


def take_file(connection: socket.socket) -> int:
    """Takes an open file from the process at the other end; returns its descriptor here.

    Raises:
        EOFError: None came.
        OSError: The system cannot, or the connection is gone.
    """
    if sys.platform == "win32":
        raise OSError(errno.ENOSYS, "this system passes no open files on")
    _, files, _, _ = socket.recv_fds(connection, 1, 1)
    if len(files) != 1:
        raise EOFError
    return files[0]
