"""The process of a command: exit codes, output that never fails, signals, and the start of JAX."""

import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

DONE, MEMBERS_FAILED, BAD_INPUT, INTERRUPTED, UNFORESEEN = 0, 1, 2, 3, 4

# what the operating system says of a path that cannot be used
BAD_PATH = {errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP}
BAD_PATH |= {errno.ENOTDIR, errno.EISDIR, errno.EEXIST}

# Ctrl-C, a lost terminal, and what batch systems send before time is over
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
STOPPING = "\nStopping after the segment under way. Progress is saved; more signals change nothing."
STOPPED = "\nInterrupted. The same command goes on from there."

# XLA ends the process at a flag that it does not know
PARSE_FLAGS = (
    "from jaxlib.xla_client import CompileOptions as C; C().executable_build_options.debug_options"
)


class UsageError(Exception):
    """Arguments or environment variables that a command cannot work with."""


def explain(error: Exception) -> tuple[int, str]:
    """The exit code of an error and what to say of it."""
    import tempfile
    import traceback

    from rnn_dynamics.sweep.config.loading import ConfigError
    from rnn_dynamics.sweep.storage.files import StoreError, WriteError

    cause = error.__cause__ if isinstance(error, WriteError) else error
    refused = isinstance(cause, OSError) and cause.errno in BAD_PATH
    if isinstance(error, WriteError) and not refused:
        return INTERRUPTED, str(error)
    # a job that is queued again would end for want of memory again
    if isinstance(error, ConfigError | StoreError | UsageError | MemoryError):
        return BAD_INPUT, str(error) or one_line(error)
    if isinstance(error, OSError) and refused:
        name = os.fsdecode(error.filename or ".")
        return BAD_INPUT, f"Path `{name}` cannot be used: {error.strerror}."
    what = f"Unforeseen {one_line(error)}"
    try:
        handle, path = tempfile.mkstemp(".txt", "rnn-dynamics-")
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(traceback.format_exception(error))
    except OSError as why:
        return UNFORESEEN, f"{what} (the traceback cannot be written: {why.strerror})"
    return UNFORESEEN, f"{what} (traceback in {path})"


class Output:
    """A text stream that never fails.

    After an error whatever is written goes to the null device, also what C code writes. Text that
    the stream's encoding lacks is written as question marks.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream: Any = stream or io.StringIO()
        if hasattr(self._stream, "reconfigure"):
            self._try(lambda: self._stream.reconfigure(errors="replace", line_buffering=True))

    def write(self, text: str) -> int:
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, call: Callable[..., Any], *arguments: str) -> None:
        try:
            call(*arguments)
        except (OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            try:
                # Python still holds what it could not write, and would fail with it at exit
                os.dup2(null, self._stream.fileno())
            except (OSError, ValueError):
                self._stream = io.StringIO()  # nobody reads it
            os.close(null)


@contextmanager
def safe_output() -> Iterator[None]:
    """Let no output fail while this context is open: what only informs may end nothing."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # else the next file, say of a result, gets the number and takes the messages
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Output(streams[0]), Output(streams[1])
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = streams


class Interrupts:
    """The signals that ask a command to end. Calling it tells whether one has come.

    A signal ends the process at once, or is only noted where something must be finished first
    (`deferred`); more change nothing. No exception is raised in the middle of other code, which may
    lose it, as garbage collection does.

    Args:
        alone: whether the process is there for this command alone, and ends with it; else a signal
            raises KeyboardInterrupt.
    """

    def __init__(self, alone: bool) -> None:
        self._alone, self._asked, self._deferred = alone, False, False
        self._previous: dict[int, Any] = {}

    def __call__(self) -> bool:
        return self._asked

    def __enter__(self) -> "Interrupts":
        numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
        with suppress(ValueError):  # not the main thread
            for number in numbers:
                previous = signal.signal(number, self._ask)
                self._previous[number] = previous
                if previous == signal.SIG_IGN and number == getattr(signal, "SIGHUP", None):
                    signal.signal(number, previous)  # nohup
        return self

    def __exit__(self, *_: object) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, signal.SIG_IGN if self._alone else previous)

    def _ask(self, number: int, frame: Any) -> None:
        again, self._asked = self._asked, True
        if self._deferred:
            if not again:
                _tell(STOPPING)
        elif self._alone:
            _tell(STOPPED)
            os._exit(INTERRUPTED)
        elif not again:
            raise KeyboardInterrupt

    @contextmanager
    def deferred(self) -> Iterator[Callable[[], bool]]:
        """Only note signals while this context is open; at its end raise KeyboardInterrupt."""
        self._deferred = True
        try:
            yield self
        finally:
            self._deferred = False
        if self._asked:
            raise KeyboardInterrupt


def import_jax() -> None:
    """Import JAX.

    Raises:
        UsageError: if an environment variable keeps it from that.
    """
    if "jax" in sys.modules:
        return
    if "XLA_FLAGS" in os.environ:
        import subprocess

        line = [sys.executable, "-c", PARSE_FLAGS]
        parsed = subprocess.run(line, capture_output=True, encoding="utf-8", errors="replace")
        if parsed.returncode and "parse_flags" in parsed.stderr:
            said = parsed.stderr.splitlines()[0].partition("] ")[2]
            raise UsageError(f"Variable `XLA_FLAGS` must hold flags of XLA, but: {said}")
    with _wanting_jax():
        import jax  # noqa: F401


def set_up_jax(dtype: str, cache: bool = False) -> None:
    """Set precision and compile cache before JAX starts: the library itself does not."""
    os.environ["JAX_ENABLE_X64"] = str(dtype == "float64")
    # it takes SIGTERM for itself, and keeps it
    os.environ["JAX_ENABLE_PREEMPTION_SERVICE"] = "false"
    if cache:
        from rnn_dynamics.sweep.engine.compile_cache import use_compile_cache

        use_compile_cache()
    import_jax()
    sys.modules["jax"].config.update("jax_enable_x64", dtype == "float64")


def start_jax() -> None:
    """Let JAX look for its devices.

    Raises:
        UsageError: if it finds none, as `JAX_PLATFORMS` and so on say it.
    """
    with _wanting_jax():
        sys.modules["jax"].local_devices()


@contextmanager
def _wanting_jax() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise UsageError(
            f"JAX must start with the environment variables as they are, but: {one_line(error)}"
        ) from error


def one_line(error: Exception) -> str:
    """The kind of an error and what it says, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


def _tell(text: str) -> None:
    """Write to standard error where a signal may have come in the middle of another write."""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())
