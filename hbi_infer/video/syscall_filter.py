"""The seccomp filter of a process that decodes: a program of classic BPF that the kernel runs before each system call.

It is written here, in a few instructions for each rule, and not by libseccomp: that is a library of the system which is
missing from small images, while the decoder needs one short list. A test runs the programs of both processors in an
interpreter, and compares the numbers of the calls with libseccomp's where that is installed.

What a decoder needs is allowed: memory, time, its threads, and to read and write what is open. What no decoder does,
and who has taken one over would do first, ends the process: a socket, another process, another program, writing a
file. Reading another file is refused, and everything else does not exist.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

Processor: TypeAlias = Literal["x86_64", "aarch64"]
"""Processors that the calls are numbered for, as `platform.machine` names them."""

ALLOW = 0x7FFF_0000
KILL = 0x8000_0000
_ERRNO = 0x0005_0000
REFUSE = _ERRNO | errno.EACCES
_MISSING = _ERRNO | errno.ENOSYS
"""Unknown calls do not exist: a newer C library then takes the older call, which is known."""

_ARCHITECTURES: dict[Processor, int] = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
_X32 = 0x4000_0000
"""Bit of the calls of x32, whose numbers mean other calls."""

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_AT_NUMBER, _AT_ARCHITECTURE, _AT_ARGUMENTS = 0, 4, 16
_WORD = 0xFFFF_FFFF

_CLONE_THREAD = 0x1_0000
_WRITES_OR_MAKES = 0o103  # O_ACCMODE | O_CREAT
_PROT_EXEC = 4
_AT_EMPTY_PATH = 0x1000

NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "brk": (12, 214),
    "clock_getres": (229, 114),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "clone": (56, 220),
    "clone3": (435, 435),
    "close": (3, 57),
    "creat": (85, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "fdatasync": (75, 83),
    "fork": (57, None),
    "fstat": (5, 80),
    "fsync": (74, 82),
    "ftruncate": (77, 46),
    "futex": (202, 98),
    "getcpu": (309, 168),
    "getcwd": (79, 17),
    "getegid": (108, 177),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "getrandom": (318, 278),
    "getrlimit": (97, 163),
    "getrusage": (98, 165),
    "gettid": (186, 178),
    "gettimeofday": (96, 169),
    "getuid": (102, 174),
    "kill": (62, 129),
    "lseek": (8, 62),
    "madvise": (28, 233),
    "membarrier": (324, 283),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "munmap": (11, 215),
    "nanosleep": (35, 101),
    "newfstatat": (262, 79),
    "open": (2, None),
    "openat": (257, 56),
    "poll": (7, None),
    "ppoll": (271, 73),
    "pread64": (17, 67),
    "prlimit64": (302, 261),
    "ptrace": (101, 117),
    "read": (0, 63),
    "readv": (19, 65),
    "recvmsg": (47, 212),
    "restart_syscall": (219, 128),
    "rseq": (334, 293),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_getaffinity": (204, 123),
    "sched_yield": (24, 124),
    "set_robust_list": (273, 99),
    "setitimer": (38, 103),
    "sigaltstack": (131, 132),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "sysinfo": (99, 179),
    "tgkill": (234, 131),
    "time": (201, None),
    "times": (100, 153),
    "uname": (63, 160),
    "vfork": (58, None),
    "write": (1, 64),
    "writev": (20, 66),
}
"""Call -> its number on x86_64 and on aarch64; None where it does not exist."""

_OFTEN = ("read", "pread64", "futex", "write", "lseek", "munmap", "madvise", "clock_gettime", "setitimer")
"""Allowed calls that come first, for the kernel asks the rules one after the other."""
_ALSO_ALLOWED = (
    "brk",
    "clock_getres",
    "clock_nanosleep",
    "close",
    "exit",
    "exit_group",
    "fstat",
    "getcpu",
    "getcwd",
    "getegid",
    "geteuid",
    "getgid",
    "getpid",
    "getppid",
    "getrandom",
    "getrlimit",
    "getrusage",
    "gettid",
    "gettimeofday",
    "getuid",
    "membarrier",
    "mremap",
    "nanosleep",
    "poll",
    "ppoll",
    "readv",
    "recvmsg",
    "restart_syscall",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "sched_yield",
    "set_robust_list",
    "sigaltstack",
    "sysinfo",
    "time",
    "times",
    "uname",
    "writev",
)
_FOR_WRITING = ("fdatasync", "fsync", "ftruncate")
_FATAL = ("creat", "execve", "execveat", "fork", "ptrace", "socket", "socketpair", "vfork")


class Condition(NamedTuple):
    """A test of an argument of a call: `argument & mask == value`, in 64 bits."""

    argument: int
    mask: int
    value: int


@dataclass(frozen=True)
class Rule:
    """The fate of a call. The first rule that fits counts.

    Attributes:
        call: Name of the call.
        action: The answer of the kernel.
        condition: When the rule fits; None: always.
    """

    call: str
    action: int
    condition: Condition | None = None


def rules(process_id: int, *, may_write: bool) -> Iterator[Rule]:
    """Yields the rules of a process that decodes.

    Args:
        process_id: The process, which may send signals to itself.
        may_write: Whether it may also shorten and flush the files that it has open for writing.
    """
    for call in (*_OFTEN, *_ALSO_ALLOWED, *(_FOR_WRITING if may_write else ())):
        yield Rule(call, ALLOW)
    for call in ("mmap", "mprotect"):
        yield Rule(call, ALLOW, Condition(2, _PROT_EXEC, 0))
        yield Rule(call, REFUSE)
    yield Rule("newfstatat", ALLOW, Condition(3, _AT_EMPTY_PATH, _AT_EMPTY_PATH))
    yield Rule("prlimit64", ALLOW, Condition(2, 2**64 - 1, 0))
    yield Rule("clone", ALLOW, Condition(0, _CLONE_THREAD, _CLONE_THREAD))
    yield Rule("clone", KILL)
    yield Rule("openat", REFUSE, Condition(2, _WRITES_OR_MAKES, 0))
    yield Rule("openat", KILL)
    yield Rule("open", REFUSE, Condition(1, _WRITES_OR_MAKES, 0))
    yield Rule("open", KILL)
    for call in ("kill", "tgkill"):
        yield Rule(call, ALLOW, Condition(0, _WORD, process_id))
        yield Rule(call, KILL)
    for call in _FATAL:
        yield Rule(call, KILL)


def program(processor: Processor, process_id: int, *, may_write: bool) -> bytes:
    """Returns the filter of a process that decodes, in the kernel's format: 8 bytes an instruction.

    Args:
        processor: Processor whose calls are numbered.
        process_id: The process that is to be filtered.
        may_write: Whether it may also shorten and flush the files that it has open for writing.
    """
    body = [_instruction(_LOAD, _AT_ARCHITECTURE)]
    body += [_instruction(_JUMP_EQUAL, _ARCHITECTURES[processor], 1, 0), _instruction(_RETURN, KILL)]
    body.append(_instruction(_LOAD, _AT_NUMBER))
    if processor == "x86_64":
        body += [_instruction(_JUMP_AT_LEAST, _X32, 0, 1), _instruction(_RETURN, KILL)]
    column = tuple(_ARCHITECTURES).index(processor)
    for rule in rules(process_id, may_write=may_write):
        number = NUMBERS[rule.call][column]
        if number is not None:
            body += _compiled(number, rule)
    body.append(_instruction(_RETURN, _MISSING))
    return b"".join(body)


def _compiled(number: int, rule: Rule) -> list[bytes]:
    """Returns the instructions of a rule, before and after which the number of the call is loaded."""
    if rule.condition is None:
        return [_instruction(_JUMP_EQUAL, number, 0, 1), _instruction(_RETURN, rule.action)]
    argument, mask, value = rule.condition
    low, high = _AT_ARGUMENTS + 8 * argument, _AT_ARGUMENTS + 8 * argument + 4
    return [
        _instruction(_JUMP_EQUAL, number, 0, 8),
        _instruction(_LOAD, low),
        _instruction(_AND, mask & _WORD),
        _instruction(_JUMP_EQUAL, value & _WORD, 0, 4),
        _instruction(_LOAD, high),
        _instruction(_AND, mask >> 32),
        _instruction(_JUMP_EQUAL, value >> 32, 0, 1),
        _instruction(_RETURN, rule.action),
        _instruction(_LOAD, _AT_NUMBER),
    ]


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """Returns one instruction; jumps count the instructions that are left out."""
    return struct.pack("<HBBI", code, if_true, if_false, value)
