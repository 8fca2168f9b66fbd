"""The filter's programs, run in an interpreter of the kernel's instructions, for both processors."""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import struct
from collections.abc import Sequence

import pytest

from hbi_infer.video.syscall_filter import ALLOW, KILL, NUMBERS, REFUSE, Processor, program

PROCESSORS: dict[Processor, int] = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
OWN = 4242
MISSING = 0x50000 | errno.ENOSYS
HIGH = 2**40


def outcome(code: bytes, architecture: int, number: int, arguments: Sequence[int] = ()) -> int:
    """What the kernel does about a call: the value that the program returns."""
    values = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, architecture, 0, *values)
    instructions = list(struct.iter_unpack("<HBBI", code))
    assert 0 < len(instructions) <= 4096
    at, word = 0, 0
    while True:
        operation, if_true, if_false, value = instructions[at]
        at += 1
        match operation:
            case 0x20:
                (word,) = struct.unpack_from("<I", data, value)
            case 0x54:
                word &= value
            case 0x15:
                at += if_true if word == value else if_false
            case 0x35:
                at += if_true if word >= value else if_false
            case 0x06:
                return int(value)
            case _:
                raise AssertionError(f"instruction {operation:#x}")


def of(processor: Processor, call: str, *arguments: int, may_write: bool = False) -> int | None:
    """What becomes of a call by its name; None where the processor does not have it."""
    number = NUMBERS[call][list(PROCESSORS).index(processor)]
    if number is None:
        return None
    code = program(processor, OWN, may_write=may_write)
    return outcome(code, PROCESSORS[processor], number, arguments)


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize(
    ("call", "arguments", "expected"),
    [
        ("read", (), ALLOW),
        ("pread64", (), ALLOW),
        ("exit_group", (), ALLOW),
        ("mmap", (0, 4096, 3), ALLOW),
        ("mmap", (0, 4096, 7), REFUSE),
        ("mprotect", (0, 4096, 1), ALLOW),
        ("mprotect", (0, 4096, HIGH | 4), REFUSE),
        ("clone", (0x3D0F00,), ALLOW),
        ("clone", (17,), KILL),
        ("clone3", (), MISSING),
        ("openat", (0, 0, 0o2000000), REFUSE),
        ("openat", (0, 0, 1), KILL),
        ("openat", (0, 0, 2), KILL),
        ("openat", (0, 0, 0o100), KILL),
        ("open", (0, 0), REFUSE),
        ("open", (0, 0o101), KILL),
        ("creat", (), KILL),
        ("kill", (OWN, 11), ALLOW),
        ("kill", (HIGH | OWN, 11), ALLOW),
        ("kill", (OWN + 1, 11), KILL),
        ("kill", (2**64 - 1, 9), KILL),
        ("tgkill", (1, 1, 9), KILL),
        ("prlimit64", (0, 7, 0, 5), ALLOW),
        ("prlimit64", (0, 7, 1, 5), MISSING),
        ("prlimit64", (0, 7, HIGH, 5), MISSING),
        ("newfstatat", (3, 0, 0, 0x1000), ALLOW),
        ("newfstatat", (3, 0, 0, 0), MISSING),
        ("socket", (), KILL),
        ("execve", (), KILL),
        ("fork", (), KILL),
        ("ptrace", (), KILL),
        ("ftruncate", (), MISSING),
        ("fsync", (), MISSING),
    ],
)
def test_what_becomes_of_a_call(processor: Processor, call: str, arguments: tuple[int, ...], expected: int) -> None:
    found = of(processor, call, *arguments)
    assert found == expected or (found is None and processor == "aarch64")


@pytest.mark.parametrize("processor", PROCESSORS)
def test_who_writes_may_shorten_and_flush_and_open_nothing(processor: Processor) -> None:
    assert of(processor, "ftruncate", may_write=True) == of(processor, "fsync", may_write=True) == ALLOW
    assert of(processor, "openat", 0, 0, 1, may_write=True) == KILL


@pytest.mark.parametrize("processor", PROCESSORS)
def test_unknown_calls_do_not_exist(processor: Processor) -> None:
    code = program(processor, OWN, may_write=False)
    known = {numbers[list(PROCESSORS).index(processor)] for numbers in NUMBERS.values()}
    unknown = [number for number in range(600) if number not in known]
    assert {outcome(code, PROCESSORS[processor], number) for number in unknown} == {MISSING}


@pytest.mark.parametrize("processor", PROCESSORS)
def test_calls_of_another_processor_are_fatal(processor: Processor) -> None:
    code = program(processor, OWN, may_write=False)
    for architecture in {0x40000003, *PROCESSORS.values()} - {PROCESSORS[processor]}:
        assert outcome(code, architecture, 0) == KILL


def test_the_calls_of_x32_are_fatal() -> None:
    code = program("x86_64", OWN, may_write=False)
    assert outcome(code, PROCESSORS["x86_64"], 0x40000000) == KILL
    assert outcome(code, PROCESSORS["x86_64"], 0xFFFFFFFF) == KILL


@pytest.mark.skipif(ctypes.util.find_library("seccomp") is None, reason="libseccomp is not installed")
def test_the_numbers_are_those_of_libseccomp() -> None:
    resolve = ctypes.CDLL(ctypes.util.find_library("seccomp")).seccomp_syscall_resolve_name_arch
    resolve.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    for call, numbers in NUMBERS.items():
        found = tuple(resolve(architecture, call.encode()) for architecture in PROCESSORS.values())
        assert tuple(number if number >= 0 else None for number in found) == numbers, call
