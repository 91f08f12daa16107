"""C sources below this folder as libraries: compiled once per kind of machine, kept in the user's
cache directory, loaded.

A library's name is made from all that its bits depend on, and a seal beside it says what they are:
nothing else is ever loaded. Processes that compile at the same time do not meet, as each renames
its own into place.
"""

import ctypes
import hashlib
import logging
import os
import shutil
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rnn_dynamics.kernels.cache import kind_of_machine, own_directory

HERE = Path(__file__).parent
FLAGS = ("-std=gnu11", "-O3", "-funroll-loops", "-fPIC", "-shared", "-pthread")
FOR_THIS_MACHINE = ("-march=native", "-mcpu=native", "")  # the first that the compiler takes
SWITCH = "RNN_DYNAMICS_NATIVE"
MOST_SECONDS = 120  # of a compilation
SECONDS_LEFT_OVER = 3600  # after which nobody writes into a temporary folder any more

log = logging.getLogger("rnn_dynamics")
_lock = threading.Lock()
_known: dict[tuple[Any, ...], "Library | None"] = {}


class Library(NamedTuple):
    """A loaded library.

    Attributes:
        name: what its bits depend on, as a word: sources, constants, headers, and the kind of
            machine.
        functions: what it exports.
    """

    name: str
    functions: ctypes.CDLL


def library(
    source: str,
    constants: Mapping[str, Any],
    headers: Path,
    check: Callable[[ctypes.CDLL], bool],
) -> Library | None:
    """A library from a source below this folder; None, with a line in the log that says why, if it
    cannot be had.

    There is none without a C compiler (the environment's CC, or cc, gcc or clang), and none if the
    environment's RNN_DYNAMICS_NATIVE is 0.

    Args:
        source: path of a file below this folder, which may include others of its own.
        constants: macros that it is compiled with.
        headers: a folder of other headers.
        check: whether the functions of a library do what they should; asked once per process,
            before anyone else may call them.
    """
    if os.environ.get(SWITCH, "1") == "0":
        return None
    key = (source, *macros(constants), headers)
    with _lock:
        if key not in _known:
            _known[key] = _load(source, constants, headers, check)
        return _known[key]


def _load(
    source: str,
    constants: Mapping[str, Any],
    headers: Path,
    check: Callable[[ctypes.CDLL], bool],
) -> Library | None:
    try:
        name = _name(source, constants, headers)
        with kept(f"{name}.so", partial(_compile, source, constants, headers)) as path:
            functions = ctypes.CDLL(str(path))
        if check(functions):
            return Library(name, functions)
        why = "it was compiled, but computes something else"
    except subprocess.CalledProcessError as error:
        why = "the C compiler says: " + (error.stderr.strip().splitlines() or ["nothing"])[0]
    except (OSError, subprocess.TimeoutExpired, AttributeError) as error:
        why = str(error)
    complain(why)
    return None


def complain(why: str) -> None:
    """Say in the log why there is no kernel."""
    log.warning("Gradients are found by JAX alone, which is slower: %s.", why)


@contextmanager
def kept(name: str, make: Callable[[Path], Any]) -> Iterator[Path]:
    """A file of this name in the user's cache directory, made if it is not there or damaged:
    complete, under another name, then renamed.

    Without a place to keep it, it is there for as long as the context is.
    """
    with ExitStack() as stack:
        directory = own_directory("native") or Path(
            stack.enter_context(tempfile.TemporaryDirectory())
        )
        path = directory / name
        _remove_left_overs(directory)
        if not _is_sealed(path):
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir=directory))
            made = Path(folder) / name
            make(made)
            _seal(made).write_bytes(_sha256(made))
            for file in (_seal(path), path):
                if file.is_dir() and not file.is_symlink():
                    file.rename(tempfile.mkdtemp(prefix="damaged-", dir=directory))
                os.replace(made.with_name(file.name), file)
        yield path


def _remove_left_overs(directory: Path) -> None:
    """Remove the folders of processes that were killed while they compiled."""
    for folder in directory.glob("tmp*"):
        with suppress(OSError):
            if time.time() - folder.lstat().st_mtime > SECONDS_LEFT_OVER:
                shutil.rmtree(folder)


def _name(source: str, constants: Mapping[str, Any], headers: Path) -> str:
    paths = [*sorted((HERE / source).parent.glob("*.[ch]")), *sorted(headers.rglob("*c_api.h"))]
    texts = [path.read_text("utf-8") for path in paths]
    return name_of(source, [*texts, source, *macros(constants), *FLAGS, kind_of_machine()])


def name_of(source: str, facts: Iterable[str]) -> str:
    """A name of what is made from a source, that says all that its bits depend on."""
    return f"{Path(source).stem}_{hashlib.sha256(chr(0).join(facts).encode()).hexdigest()[:16]}"


def macros(constants: Mapping[str, Any]) -> list[str]:
    """Definitions of numbers and of lists of them."""
    texts = {name: repr(value) for name, value in constants.items()}
    return [f"-D{name}={text.replace('[', '{').replace(']', '}')}" for name, text in texts.items()]


def c_compiler() -> str | None:
    """The path of the environment's CC, or of cc, gcc or clang; None if there is none."""
    names = (os.environ.get("CC"), "cc", "gcc", "clang")
    return next((found for name in names if name and (found := shutil.which(name))), None)


def _compile(source: str, constants: Mapping[str, Any], headers: Path, path: Path) -> None:
    compiler = c_compiler()
    if compiler is None:
        raise OSError("there is no C compiler")
    for index, machine in enumerate(FOR_THIS_MACHINE):
        line = [compiler, *FLAGS, *filter(None, [machine]), *macros(constants)]
        line += [f"-I{headers}", str(HERE / source), "-o", str(path), "-lm", "-ldl"]
        try:
            subprocess.run(
                line,
                check=True,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=MOST_SECONDS,
                start_new_session=True,  # Ctrl-C is for the run, which ends in order
            )
            break
        except subprocess.CalledProcessError:
            if index == len(FOR_THIS_MACHINE) - 1:
                raise


def _is_sealed(path: Path) -> bool:
    try:
        own = _is_own(path) and _is_own(_seal(path))
        return own and _seal(path).read_bytes() == _sha256(path)
    except OSError:
        return False


def _is_own(path: Path) -> bool:
    """Whether a file is one, and the user's: another owner could change it by a link elsewhere."""
    status = path.lstat()
    user = os.getuid() if hasattr(os, "getuid") else status.st_uid
    return stat.S_ISREG(status.st_mode) and status.st_uid == user


def _seal(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _sha256(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).hexdigest().encode()
