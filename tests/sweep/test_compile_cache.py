"""How many programs a run compiles, and the cache in which the command line keeps them."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from small_sweep import experiment

import rnn_dynamics as rd
from rnn_dynamics import cli
from rnn_dynamics.kernels import cache
from rnn_dynamics.sweep.config.loading import make_experiment
from rnn_dynamics.sweep.engine import compile_cache
from rnn_dynamics.sweep.engine.compile_cache import use_compile_cache
from rnn_dynamics.sweep.report import report

SETTINGS = (
    *("JAX_ENABLE_COMPILATION_CACHE", "JAX_COMPILATION_CACHE_DIR", "TF_CPP_MIN_LOG_LEVEL"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
)
CONFIG = """
target = { kind = "leaky_integrator", decay = 0.3 }
network = { num_units = 5, weight_scale = 0.3, num_seeds = 2 }
learning = { learning_rate = 0.05, num_steps = 40 }
record = { num = 3 }
compute = { chunk_size = 2 }
"""


@pytest.mark.core
def test_a_compile_group_compiles_two_programs(tmp_path):
    """Beginning and learning; nothing is compiled beside them, however many chunks and
    numbers there are.
    """
    jax.clear_caches()
    config = experiment(network__num_units=[3, 4], record__weights="final")
    assert compiled(config, tmp_path / "descent") == 2 * 2


def test_flows_and_theories_that_learn_compile_as_many(tmp_path):
    jax.clear_caches()
    learning = {"method": "gradient_flow", "train_time": 1.0, "stop": {"loss": 1e-3}}
    changes = {"theory__models": ["word_subspace"], "theory__word_subspace": {"max_length": 0}}
    tables = experiment(network__weight_scale=0.1, **changes).tables()
    config = make_experiment(tables | {"learning": learning})
    assert compiled(config, tmp_path / "run") == 2 * 2


def compiled(config, directory):
    run = rd.run(config, directory, progress=False)
    assert run.complete
    return run.provenance["sessions"][0]["programs"]["compiled"]


def test_a_run_leaves_the_settings_of_jax_alone(finished):
    assert jax.config.jax_compilation_cache_dir is None
    assert finished.provenance["sessions"][0]["programs"]["loaded"] == 0


@pytest.fixture
def start(tmp_path):
    """Starts the command, and another that waits for it and tells the chunk's bytes, the programs,
    and what is on stderr.
    """
    config = tmp_path / "small.toml"
    config.write_text(CONFIG)
    env = {k: v for k, v in os.environ.items() if k not in SETTINGS}
    env["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    env["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # most of the time is compilation

    def command(name, *options):
        out = tmp_path / name
        line = [sys.executable, "-m", "rnn_dynamics", "run", str(config), "--out", str(out)]
        process = subprocess.Popen([*line, "--quiet", *options], env=env, stderr=subprocess.PIPE)

        def result():
            error = process.communicate()[1]
            assert process.returncode == cli.DONE, error
            programs = rd.open_run(out).provenance["sessions"][0]["programs"]
            return (out / "chunks" / "00000.npz").read_bytes(), programs, error.decode()

        return result

    return command


def test_loaded_programs_give_the_bits_of_compiled_ones_and_damage_is_mended(start, tmp_path):
    """Two processes fill one cache at once; then every entry is torn or overwritten; then all is
    well.
    """
    under_way = [start("without", "--no-compile-cache"), start("first"), start("second")]
    without, first, second = (result() for result in under_way)
    bits = without[0]
    assert without == (bits, {"compiled": 2, "loaded": 0}, "")
    for result in (first, second):
        assert result == (
            bits,
            {"compiled": 2 - result[1]["loaded"], "loaded": result[1]["loaded"]},
            "",
        )
    entries = [path for path in Path(tmp_path, "cache").rglob("*-cache") if path.is_file()]
    assert len(entries) > 2  # those of the run, and small ones of its figures
    for index, path in enumerate(entries):
        path.write_bytes((path.read_bytes()[:-100], b"", os.urandom(3000))[index % 3])
    assert start("damaged")() == (bits, {"compiled": 2, "loaded": 0}, "")
    assert start("warm")() == (bits, {"compiled": 0, "loaded": 2}, "")
    assert "programs 0 compiled, 2 loaded" in report(rd.open_run(tmp_path / "warm"))[0]


SCRIPT = """
import sys
import rnn_dynamics as rd

if sys.argv[2] == "late":
    import jax

    jax.jit(lambda x: x + 1)(1.0)
print(rd.use_compile_cache(sys.argv[1]))
import jax
import jax.numpy as jnp

hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
print(float(jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones(50))))
print("/jax/compilation_cache/cache_hits" in hits)
"""


@pytest.mark.parametrize("when", ["early", "late"])
def test_a_script_keeps_its_programs_too(tmp_path, when):
    """Quietly, if JAX is imported later; late means that JAX has compiled already."""
    env = {k: v for k, v in os.environ.items() if k not in SETTINGS}
    line = [sys.executable, "-c", SCRIPT, str(tmp_path / "own"), when]
    runs = [subprocess.run(line, env=env, capture_output=True, check=True) for _ in range(2)]
    assert when == "late" or [run.stderr for run in runs] == [b"", b""]
    lines = [run.stdout.decode().split() for run in runs]
    assert lines[0][:2] == lines[1][:2]
    assert [line[2] for line in lines] == ["False", "True"]
    assert lines[0][0] == str(tmp_path / "own" / cache.kind_of_machine())


@pytest.fixture
def surroundings(monkeypatch, tmp_path):
    """An environment without settings, and no JAX yet."""
    for name in SETTINGS:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.delitem(sys.modules, "jax")
    monkeypatch.setattr("warnings.showwarning", lambda *_: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return monkeypatch


def test_a_cache_in_no_place_is_refused(surroundings, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        rd.use_compile_cache(tmp_path / "file")
    with pytest.raises(TypeError, match="Argument `directory` must be a text or a Path, but is 3"):
        rd.use_compile_cache(3)


def test_the_cache_is_the_users_and_of_one_kind_of_machine(surroundings, tmp_path):
    directory = use_compile_cache()
    assert directory.parent == tmp_path / "rnn_dynamics" / "compiled"
    assert directory.stat().st_mode & 0o077 == 0
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(directory)
    surroundings.delenv("JAX_COMPILATION_CACHE_DIR")
    assert use_compile_cache() == directory
    surroundings.delenv("JAX_COMPILATION_CACHE_DIR")
    surroundings.setattr(cache.platform, "machine", lambda: "another")
    assert use_compile_cache() != directory


def test_a_user_may_choose_the_directory_or_none(surroundings, tmp_path):
    surroundings.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "own"))
    assert use_compile_cache() == tmp_path / "own"
    assert not (tmp_path / "rnn_dynamics").exists()
    surroundings.setenv("JAX_COMPILATION_CACHE_DIR", "")
    assert use_compile_cache() is None
    surroundings.delenv("JAX_COMPILATION_CACHE_DIR")
    surroundings.setenv("JAX_ENABLE_COMPILATION_CACHE", "False")
    assert use_compile_cache() is None
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_where_nothing_can_be_written_there_is_no_cache(surroundings, tmp_path):
    (tmp_path / "file").write_text("")
    surroundings.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert use_compile_cache() is None
    surroundings.setenv("XDG_CACHE_HOME", str(tmp_path))
    surroundings.setattr(cache.os, "access", lambda *_: False)
    assert use_compile_cache() is None
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_the_oldest_entries_are_forgotten(surroundings, tmp_path):
    surroundings.setattr(compile_cache, "MOST_BYTES", 250)
    folder = tmp_path / "rnn_dynamics" / "compiled" / "another kind"
    folder.mkdir(parents=True)
    for age, name in enumerate(("new", "old", "oldest")):
        path = folder / f"{name}-cache"
        path.write_bytes(bytes(100))
        os.utime(path, (1e9 - age, 1e9 - age))
    use_compile_cache()
    assert sorted(path.name for path in folder.iterdir()) == ["new-cache", "old-cache"]
