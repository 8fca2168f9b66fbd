"""The sandbox of a process that decodes: it gives up what it does not need, before a file can take it over.

On Linux a process that is confined gains no privileges, opens no file and no socket, and starts no process or program:
it has the files that it was given open, and the pipe to its parent. Filters of the kernel see to that (seccomp for all
of its threads; Landlock for the thread that decodes, as a second fence that is there on every processor). Its memory,
its processor time and what it writes are bounded too. Each fence that a system does not have is left out;
`Fences` says which stand. Other systems have none of them.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import struct
import sys
from dataclasses import dataclass

from hbi_infer.video.syscall_filter import program
from hbi_infer.worker_process import end_at_once

_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_CALLS = {"x86_64": 317, "aarch64": 277}
_SECCOMP_SET_MODE_FILTER = 1
_ALL_THREADS, _KEEP_SPEED = 1, 4
"""Flags of a filter: it holds for the threads that run already, and does not slow down speculation, as older kernels
would for a process with secrets; a decoder has none."""

_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446
_LANDLOCK_VERSION = 1
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
"""Version of Landlock -> number of rights on files and folders that it knows."""
_NET_VERSION, _SCOPE_VERSION = 4, 6
_NO_PROCESSES = 0


@dataclass(frozen=True)
class Fences:
    """The fences that stand around a process.

    Attributes:
        no_new_privileges: It can gain no privileges, whatever it runs.
        calls_filtered: The kernel lets it make only the system calls of a decoder (seccomp).
        landlock: Version of Landlock that keeps its decoding thread from all files; 0: none.
        limits: Names of what is bounded.
    """

    no_new_privileges: bool = False
    calls_filtered: bool = False
    landlock: int = 0
    limits: tuple[str, ...] = ()

    @property
    def is_closed(self) -> bool:
        """Whether the process can open no other file."""
        return self.calls_filtered or self.landlock > 0

    def in_words(self) -> str:
        """Returns the fences as a list for people; "none" if there are none."""
        found = ["no new privileges"] if self.no_new_privileges else []
        found += ["seccomp"] if self.calls_filtered else []
        found += [f"Landlock {self.landlock}"] if self.landlock else []
        found += [f"limits of {', '.join(self.limits)}"] if self.limits else []
        return "; ".join(found) or "none"


_fences = Fences()
"""Fences of this process."""


def can_confine() -> bool:
    """Returns whether this system has fences, so that files are to be handed over open."""
    return sys.platform == "linux"


def fences() -> Fences:
    """Returns the fences that stand around this process."""
    return _fences


def confine(*, cpu_seconds: float | None = None, may_write: bool = False) -> Fences:
    """Confines this process for good; from now on it can open no file. Does nothing outside Linux.

    Modules that are needed later are to be imported before.

    Args:
        cpu_seconds: Processor time that it may take from its start to its end; None: as much as it likes.
        may_write: Whether it writes to a file that it has open. Else it can write to pipes alone.

    Returns:
        The fences that stand: those that this system has.
    """
    global _fences
    if sys.platform == "linux":
        library = ctypes.CDLL(None, use_errno=True)
        limits = _limit(cpu_seconds, may_write=may_write)
        no_new_privileges = library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
        landlock = _forbid_files(library) if no_new_privileges else 0
        is_filtered = no_new_privileges and _filter_calls(library, may_write=may_write)
        _fences = Fences(no_new_privileges, is_filtered, landlock, limits)
        end_at_once()
    return _fences


def _limit(cpu_seconds: float | None, *, may_write: bool) -> tuple[str, ...]:
    """Bounds what this process takes, for good; returns what is bounded."""
    if sys.platform != "linux":
        return ()
    import resource

    wanted = {"core dumps": (resource.RLIMIT_CORE, 0)}
    if not may_write:  # encoders have threads, which count as processes
        wanted |= {"processes": (resource.RLIMIT_NPROC, _NO_PROCESSES), "files": (resource.RLIMIT_FSIZE, 0)}
    if cpu_seconds is not None:
        wanted["processor time"] = (resource.RLIMIT_CPU, math.ceil(cpu_seconds))
    for kind, most in wanted.values():
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    memory = ("memory",) if soft != resource.RLIM_INFINITY else ()
    return (*memory, *wanted)


def _forbid_files(library: ctypes.CDLL) -> int:
    """Forbids this thread all files, ports and processes that are not its own; returns the version, or 0."""
    version = int(library.syscall(_LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION))
    if version < 1:
        return 0
    rights = max(count for since, count in _FILE_RIGHTS.items() if since <= version)
    ruleset = struct.pack("<Q", 2**rights - 1)
    ruleset += struct.pack("<Q", 3) if version >= _NET_VERSION else b""
    ruleset += struct.pack("<Q", 3) if version >= _SCOPE_VERSION else b""
    descriptor = int(library.syscall(_LANDLOCK_CREATE, ruleset, ctypes.c_size_t(len(ruleset)), 0))
    if descriptor < 0:
        return 0
    is_restricted = library.syscall(_LANDLOCK_RESTRICT, descriptor, 0) == 0
    os.close(descriptor)
    return version if is_restricted else 0


class _Program(ctypes.Structure):
    """The kernel's `sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _filter_calls(library: ctypes.CDLL, *, may_write: bool) -> bool:
    """Lets this process make only a decoder's system calls; returns whether the kernel does that here."""
    processor = platform.machine()
    if processor not in ("x86_64", "aarch64") or sys.maxsize < 2**32:
        return False
    instructions = program("x86_64" if processor == "x86_64" else "aarch64", os.getpid(), may_write=may_write)
    filtered = _Program(len(instructions) // 8, instructions)
    call = _SECCOMP_CALLS[processor]
    for flags in (_ALL_THREADS | _KEEP_SPEED, _ALL_THREADS):
        if library.syscall(call, _SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(filtered)) == 0:
            return True
    return False
