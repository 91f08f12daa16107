"""How the kernel is compiled, kept and loaded; and that nothing but speed is lost where it cannot be."""

import ctypes
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from rnn_dynamics import native
from rnn_dynamics.loss import kernel
from rnn_dynamics.native import build

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")

FLOAT64 = np.dtype("float64")


@pytest.fixture
def anew(monkeypatch, tmp_path):
    """No library is known or kept."""
    monkeypatch.setattr(build, "_known", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(build.SWITCH, raising=False)
    return monkeypatch


def find() -> kernel.Kernel | None:
    return kernel.find(FLOAT64, 64, 1)


def kept(tmp_path) -> list[Path]:
    return sorted((tmp_path / "rnn_dynamics" / "native").glob("*.so"))


@pytest.mark.core
def test_it_is_compiled_once_and_what_is_damaged_is_compiled_again(anew, tmp_path):
    name = find()
    assert name is not None
    (path,) = kept(tmp_path)
    assert path.parent.stat().st_mode & 0o077 == 0
    good, made = path.read_bytes(), path.stat().st_mtime_ns
    anew.setattr(build, "_known", {})
    assert find() == name
    assert path.stat().st_mtime_ns == made
    # as another file: the one that is loaded must not change under this process
    for damaged in (good[:5000] + bytes([good[5000] ^ 1]) + good[5001:], good[:3000], b""):
        path.unlink()
        path.write_bytes(damaged)
        anew.setattr(build, "_known", {})
        assert find() == name
        assert path.read_bytes() == good
    assert kept(tmp_path) == [path]


def test_without_a_compiler_there_is_none(anew, caplog):
    anew.setenv("PATH", "")
    anew.delenv("CC", raising=False)
    assert find() is None
    assert "JAX alone, which is slower: there is no C compiler." in caplog.text


def test_a_compiler_that_fails_or_miscompiles(anew, tmp_path, caplog):
    (tmp_path / "cc").write_text("#!/bin/sh\necho 'cc: no' >&2\nexit 1\n")
    (tmp_path / "cc").chmod(0o700)
    anew.setenv("CC", str(tmp_path / "cc"))
    assert find() is None
    assert "the C compiler says: cc: no." in caplog.text
    assert kept(tmp_path) == []
    anew.setattr(build, "_known", {})
    anew.delenv("CC")
    # a sign that is wrong somewhere
    constants = kernel.constants(FLOAT64) | {"SHIFT": -kernel.projected.SHIFT}
    anew.setattr(kernel, "constants", lambda dtype: constants)
    assert find() is None
    assert "it was compiled, but computes something else." in caplog.text


def test_the_environment_can_switch_it_off(anew, tmp_path):
    anew.setenv(build.SWITCH, "0")
    assert find() is None
    assert kept(tmp_path) == []


def test_where_nothing_can_be_kept_it_is_compiled_for_the_process(anew, tmp_path):
    (tmp_path / "file").write_text("")
    anew.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert find() is not None


def test_accelerators_that_are_no_gpus_of_nvidia_do_without(anew, tmp_path):
    anew.setattr(jax, "default_backend", lambda: "gpu")
    assert find() is None
    assert kept(tmp_path) == []


def test_a_library_is_named_by_all_that_its_bits_depend_on(anew, tmp_path):
    headers = Path(jax.ffi.include_dir())

    def name(**changes):
        constants = kernel.constants(FLOAT64) | changes
        found = native.library("gradient.c", constants, headers, lambda _: True)
        assert found is not None
        assert isinstance(found.functions, ctypes.CDLL)
        return found.name

    assert name() == name() != name(SAFETY=8.0)
    anew.setattr(build, "_known", {})
    anew.setattr(build, "kind_of_machine", lambda: "another")
    names = {path.stem for path in kept(tmp_path)} | {name()}
    assert len(names) == 3
