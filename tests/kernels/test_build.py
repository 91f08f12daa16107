"""How the kernel is compiled, kept and loaded; and that nothing but speed is lost where it cannot
be.
"""

import ctypes
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from rnn_dynamics import kernels
from rnn_dynamics.kernels import build, cache
from rnn_dynamics.loss.krylov import kernel

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")

FLOAT64 = np.dtype("float64")


@pytest.fixture
def anew(monkeypatch, tmp_path):
    """No library is known or kept; it is compiled quickly, not well."""
    flags = [flag.replace("-O3", "-O1") for flag in build.FLAGS]
    monkeypatch.setattr(build, "FLAGS", flags)
    monkeypatch.setattr(build, "_known", {})
    monkeypatch.setattr(cache, "_told", set())
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


def keep() -> Path:
    """A file of the cache, which is quicker to make than a library."""
    with build.kept("code.so", lambda path: path.write_bytes(b"code")) as path:
        assert path.read_bytes() == b"code"
        return path


def test_whatever_is_in_the_place_of_a_file_is_repaired(anew, tmp_path):
    path = keep()
    seal = path.with_suffix(".sha256")
    good = seal.read_bytes()

    def link(file):
        file.symlink_to("/dev/null")

    def give_away(file):
        file.write_bytes(b"code" if file == path else good)
        if os.getuid() == 0:  # who else may?
            os.chown(file, 65534, -1)

    def garble(file):
        file.write_bytes(b"\xff\xfe")

    for damage in (garble, give_away, os.mkdir, os.mkfifo, link):
        for file in (path, seal):
            file.unlink()
            damage(file)
            assert keep() == path
            assert seal.read_bytes() == good
            assert file.stat().st_uid == os.getuid()
    # whoever made the folders may want them
    assert len(list(path.parent.glob("damaged-*"))) == 2


def test_folders_that_killed_compilers_left_are_removed(anew, tmp_path):
    folder = keep().parent
    for name in ("tmp_old", "tmp_young"):
        (folder / name).mkdir()
        (folder / name / "library.so").write_text("")
    os.utime(folder / "tmp_old", (1e9, 1e9))
    keep()
    assert [path.name for path in folder.glob("tmp*")] == ["tmp_young"]


def others_write(folder):
    folder.chmod(0o777)


def group_writes(folder):
    folder.chmod(0o770)


def another_owns(folder):
    if os.getuid() != 0:
        pytest.skip("only root gives folders away")
    os.chown(folder, 65534, -1)


def is_a_link(folder):
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


@pytest.mark.core
@pytest.mark.parametrize("change", [others_write, group_writes, another_owns, is_a_link])
@pytest.mark.parametrize("level", ["rnn_dynamics/native", "rnn_dynamics", "."])
def test_no_code_is_loaded_that_another_user_could_have_written(
    anew, tmp_path, change, level, caplog
):
    anew.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    directory = cache.own_directory("native")
    assert directory == tmp_path / "cache" / "rnn_dynamics" / "native"
    folder = tmp_path / "cache" / level
    change(folder)
    if level == "." and change is is_a_link:  # of the user's own making, to a folder as good
        assert cache.own_directory("native") == tmp_path / "elsewhere" / "rnn_dynamics" / "native"
        return
    assert cache.own_directory("native") is None
    assert f"`{folder}` must be a folder of this user" in caplog.text
    path = keep()
    assert not path.is_relative_to(tmp_path / "cache")
    assert not path.parent.exists()
    assert not any(directory.iterdir())


def test_a_cache_in_a_folder_where_all_may_write_is_used_if_none_may_replace_it(anew, tmp_path):
    """As in /tmp."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)
    anew.setenv("XDG_CACHE_HOME", str(tmp_path / "shared" / "own"))
    assert cache.own_directory("native") is not None
    (tmp_path / "shared").chmod(0o777)
    assert cache.own_directory("native") is None


def test_without_a_home_there_is_no_cache(anew, tmp_path):
    anew.setenv("XDG_CACHE_HOME", "relative")
    anew.setenv("HOME", str(tmp_path))
    assert cache.own_directory("a") == tmp_path / ".cache" / "rnn_dynamics" / "a"
    for home in ("also/relative", "/proc/nobody"):
        anew.setenv("HOME", home)
        assert cache.own_directory("a") is None


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
        found = kernels.library("cpu/gradient.c", constants, headers, lambda _: True)
        assert found is not None
        assert isinstance(found.functions, ctypes.CDLL)
        return found.name

    assert name() == name() != name(SAFETY=8.0)
    anew.setattr(build, "_known", {})
    anew.setattr(build, "kind_of_machine", lambda: "another")
    names = {path.stem for path in kept(tmp_path)} | {name()}
    assert len(names) == 3
