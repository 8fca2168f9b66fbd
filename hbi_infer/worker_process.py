"""Child processes for what may crash, hang or print: decoding, trying and measuring devices, building engines.

A child is a fresh Python, `python -P -m hbi_infer.worker_process MODULE`. It imports what its parent would and nothing
of the parent's program, so a script needs no `if __name__ == "__main__"`. It calls `work` of the module (see `Work`)
for each job that it is given, and ends when its parent closes the connection or is gone.

Both sides speak in messages: eight hexadecimal digits with the size of a JSON document, the document, and the raw bytes
whose sizes it states. Nothing that a child sends can make its parent run anything. The child's stdin and stdout
carry messages alone: a library that prints, prints to stderr, and the parent quotes its last lines if the child dies.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from queue import SimpleQueue
from threading import Event, Lock, Thread, Timer
from typing import Any, Literal, Protocol, TypeAlias

from hbi_engines.operating_system import cause_of_death, ended_by_kill, new_group, send_file, take_file, widen_pipe
from hbi_infer import errors
from hbi_infer.errors import HBIError

LINES_SHOWN = 3
"""Lines of stderr that are quoted when a child dies."""

PIPE_BYTES = 2**20
"""Size of the pipe that answers come through, where the system allows it."""

_SIZE_DIGITS = 8
_SECONDS_TO_END = 5.0

_ends_at_once = Event()

Document: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """The end of a job, or a part of what it has to say.

    Attributes:
        document: A JSON object.
        arrays: Raw bytes that follow it.
    """

    document: Document
    arrays: Sequence[memoryview] = ()


class Tell(Protocol):
    """Sends a part of an answer at once, from any thread."""

    def __call__(self, document: Document, arrays: Sequence[memoryview] = (), /) -> None:
        """Sends a JSON object, and the raw bytes that follow it."""


Work: TypeAlias = Callable[[Document, bytes, Tell], Answer]
"""Function in a child's module that does a job, given the raw bytes behind it and a way to tell parts of the answer."""


@dataclass(frozen=True)
class Received:
    """A message from a child.

    Attributes:
        kind: "started" when the module is imported, "part" within a job, "end" at the end of one.
        document: A JSON object.
        sizes: Number of raw bytes of each array behind it; take them with `WorkerProcess.receive_into`.
    """

    kind: Literal["started", "part", "end"]
    document: Document
    sizes: tuple[int, ...]


class WorkerDiedError(Exception):
    """A child ended before it was done; the message says how, to be read after "it died".

    Attributes:
        cause: Name of the signal that ended it, or its exit code, such as "exit code 1".
        exit_code: Its exit code; negative for a signal.
        had_started: Whether it got as far as importing its module.
        was_silent: Whether it was ended because it said nothing for too long.
        said: Last lines of its stderr.
    """

    def __init__(self, exit_code: int, stderr: str, *, had_started: bool, silent_seconds: float | None) -> None:
        self.cause = cause_of_death(exit_code)
        self.exit_code, self.had_started = exit_code, had_started
        self.was_silent = silent_seconds is not None
        how = f"of {self.cause}" if self.cause.startswith("SIG") else f"with {self.cause}"
        if silent_seconds is not None:
            how += f" (it had said nothing for {silent_seconds:g} s)"
        elif ended_by_kill(exit_code):
            how += " (memory may have run out)"
        self.said = " / ".join(stderr.strip().splitlines()[-LINES_SHOWN:]) or "it said nothing"
        super().__init__(f"{how}: {self.said}")


class WorkerProcess:
    """The parent's end of a child process.

    Args:
        module: Dotted name of the module whose `work` the child calls.
        takes_files: Whether jobs come with files that are open; Linux and macOS can pass them on.

    Attributes:
        has_started: Whether the child has imported its module.
    """

    def __init__(self, module: str, *, takes_files: bool = False) -> None:
        self.has_started = False
        self._silent_seconds: float | None = None
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self._files: socket.socket | None = None
        theirs: socket.socket | None = None
        if takes_files:
            self._files, theirs = socket.socketpair()
        passed = [theirs.fileno()] if theirs else []
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "hbi_infer.worker_process", module, *map(str, passed)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=_environment(),
            pass_fds=passed,
            **new_group(),  # Ctrl-C is for the parent, which ends its children in order
        )
        if theirs:
            theirs.close()
        assert isinstance(self._process.stdin, FileIO)
        assert isinstance(self._process.stdout, FileIO)
        self._jobs, self._answers = self._process.stdin, self._process.stdout
        widen_pipe(self._answers.fileno(), PIPE_BYTES)

    def send(self, job: Document, content: bytes = b"", *, file: int | None = None) -> None:
        """Gives the child a job, which it does after those that it has.

        Args:
            job: A JSON object.
            content: Raw bytes behind it.
            file: Descriptor of an open file, which the child gets a copy of: its number there is the job's
                "descriptor". Only a child that takes files does.
        """
        with suppress(OSError):  # the child has died: `receive` tells
            if file is not None:
                assert self._files is not None
                send_file(self._files, file)
            _send(self._jobs, {"document": job, "has_file": file is not None}, [memoryview(content)])

    def receive(self) -> Received:
        """Waits for the next message.

        Raises:
            HBIError: The job ended with this error.
            WorkerDiedError: The child has ended.
            ValueError: The child sent what is no message; so may TypeError and KeyError say.
        """
        try:
            head = _receive(self._answers)
        except (EOFError, OSError):
            raise self._died() from None
        if head["kind"] == "error":
            raise _error(head["document"])
        self.has_started = True
        return Received(head["kind"], head["document"], tuple(head["sizes"]))

    def receive_into(self, target: memoryview) -> None:
        """Takes the raw bytes of one array behind the last message.

        Args:
            target: Memory for as many bytes as the message states.

        Raises:
            WorkerDiedError: The child has ended.
        """
        try:
            _read_into(self._answers, target)
        except (EOFError, OSError):
            raise self._died() from None

    def finish(self) -> None:
        """Lets the child end, and waits until it has.

        Raises:
            WorkerDiedError: It ended with an error.
        """
        self._jobs.close()
        if self._process.wait():
            raise self._died()

    def end(self) -> None:
        """Ends the child now, if it has not ended; a `receive` in another thread raises `WorkerDiedError`."""
        self._process.kill()
        self._process.wait()

    def kill(self) -> None:
        """Ends the child now, if it has not ended, and closes the connection; no thread may be in `receive`."""
        with suppress(OSError):
            self._jobs.close()
        if self._files:
            self._files.close()
        self.end()
        self._answers.close()
        self._stderr.close()

    @contextmanager
    def time_limit(self, seconds: float | None) -> Iterator[None]:
        """Kills the child if the block takes longer; None: never."""
        if seconds is None:
            yield
            return

        def ring() -> None:
            self._silent_seconds = seconds
            self._process.kill()

        timer = Timer(seconds, ring)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _died(self) -> WorkerDiedError:
        """Says how the child ended; one that lives on after it has closed the connection is killed."""
        try:
            exit_code = self._process.wait(timeout=_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            exit_code = self._process.wait()
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace")
        return WorkerDiedError(exit_code, said, had_started=self.has_started, silent_seconds=self._silent_seconds)


def run_job(
    module: str,
    job: Document,
    content: bytes = b"",
    *,
    on_part: Callable[[Document], None] = lambda _: None,
    silence_seconds: float | None = None,
) -> Document:
    """Has a child of its own do one job.

    Args:
        module: Dotted name of the module whose `work` the child calls.
        job: A JSON object.
        content: Raw bytes behind it.
        on_part: Takes each part of the answer when it comes.
        silence_seconds: How long the child may say nothing before it is killed; None: as long as it likes.

    Returns:
        The document at the end of the job.

    Raises:
        HBIError: The job ended with this error.
        WorkerDiedError: The child ended before it was done, or with an error.
    """
    worker = WorkerProcess(module)
    try:
        worker.send(job, content)
        while True:
            with worker.time_limit(silence_seconds):
                message = worker.receive()
                while message.kind == "started":
                    message = worker.receive()
            if message.kind == "end":
                break
            on_part(message.document)
        with worker.time_limit(silence_seconds):
            worker.finish()
        return message.document
    finally:
        worker.kill()


def serve(module: str, files: int | None = None) -> None:
    """Is a child: does one job after another until the parent closes the connection or is gone.

    Args:
        module: Dotted name of the module whose `work` does a job.
        files: Descriptor of the socket that open files come through; None if none come.
    """
    handed = None if files is None else socket.socket(fileno=files)
    jobs, answers = _take_connection()
    queue: SimpleQueue[tuple[Document, bytes] | None] = SimpleQueue()
    is_busy = Event()
    is_busy.set()
    Thread(target=_listen, args=(jobs, handed, queue, is_busy), daemon=True).start()

    lock = Lock()

    def tell(kind: str, document: Document, arrays: Sequence[memoryview] = ()) -> None:
        with lock:
            _send(answers, {"kind": kind, "document": document}, arrays)

    def tell_part(document: Document, arrays: Sequence[memoryview] = (), /) -> None:
        tell("part", document, arrays)

    work: Work = importlib.import_module(module).work
    tell("started", {})
    is_busy.clear()
    while (job := queue.get()) is not None:
        is_busy.set()
        try:
            answer = work(*job, tell_part)
        except HBIError as error:
            is_busy.clear()
            tell("error", {"name": type(error).__name__, "message": str(error)})
        else:
            is_busy.clear()
            tell("end", answer.document, answer.arrays)
    if _ends_at_once.is_set():
        os._exit(0)


def end_at_once() -> None:
    """Lets this child end without what libraries do at the end of a process, such as writing files.

    A child that has given up its rights would die of that.
    """
    _ends_at_once.set()


def _take_connection() -> tuple[FileIO, FileIO]:
    """Moves the connection away from stdin and stdout, where libraries would read and print."""
    jobs, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    # Without a buffer there is no lock, which a thread that reads for ever would keep from the end of the process.
    return FileIO(jobs, "r"), FileIO(answers, "w")


def _listen(
    jobs: FileIO, files: socket.socket | None, queue: SimpleQueue[tuple[Document, bytes] | None], is_busy: Event
) -> None:
    """Passes jobs on; ends the process, whatever it does, when the parent is gone."""
    with suppress(EOFError, OSError):
        while True:
            head = _receive(jobs)
            content = b"".join(_read(jobs, size) for size in head["sizes"])
            if head["has_file"] and files:
                head["document"]["descriptor"] = take_file(files)
            is_busy.set()
            queue.put((head["document"], content))
    if is_busy.is_set():
        os._exit(1)
    queue.put(None)


def _environment() -> dict[str, str]:
    """Returns the environment of a child, which imports from where this process does."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    places = [*filter(None, given), *(place or os.getcwd() for place in sys.path)]  # noqa: PTH109
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(places))}


def _error(document: Document) -> HBIError:
    """Returns the error that a job ended with; one of a class that only the child knows becomes an `HBIError`."""
    kind = getattr(errors, document["name"]) if document["name"] in errors.__all__ else HBIError
    error: HBIError = kind(document["message"])
    return error


def _send(pipe: FileIO, head: Document, arrays: Sequence[memoryview]) -> None:
    """Writes a message."""
    text = json.dumps(head | {"sizes": [array.nbytes for array in arrays]}).encode()
    for part in (memoryview(b"%0*x" % (_SIZE_DIGITS, len(text)) + text), *arrays):
        rest = part.cast("B")
        while rest:
            rest = rest[pipe.write(rest) :]


def _receive(pipe: FileIO) -> Document:
    """Reads the document of a message; its raw bytes come next.

    Raises:
        EOFError: The other side has closed the connection.
    """
    head = json.loads(_read(pipe, int(_read(pipe, _SIZE_DIGITS), 16)))
    if not isinstance(head, dict):
        raise TypeError(f"a message is {type(head).__name__}")
    return head


def _read(pipe: FileIO, size: int) -> bytearray:
    """Reads exactly so many bytes."""
    content = bytearray(size)
    _read_into(pipe, memoryview(content))
    return content


def _read_into(pipe: FileIO, target: memoryview) -> None:
    """Fills the target."""
    while target:
        count = pipe.readinto(target)
        if not count:
            raise EOFError
        target = target[count:]


if __name__ == "__main__":
    # The module is imported under its own name: `work` sends what is defined here.
    from hbi_infer.worker_process import serve as serve_here

    serve_here(sys.argv[1], *map(int, sys.argv[2:]))
