"""What a sweep's programs are compiled with."""

import jax
import jax.numpy as jnp
import pytest

from rnn_dynamics.sweep.engine import compiling, programs


@pytest.fixture(autouse=True)
def _asked_anew():
    compiling.known_options.cache_clear()
    yield
    compiling.known_options.cache_clear()


def test_a_cpu_is_told_nothing():
    assert compiling.known_options() == {}


def test_a_gpu_is_told_what_its_compiler_knows(monkeypatch):
    """Compilers of all platforms know each other's options, so that this one can be asked; an
    option that is gone is no error.
    """
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiling.known_options() == compiling.FOR_GPUS
    compiling.known_options.cache_clear()
    monkeypatch.setattr(compiling, "FOR_GPUS", {"xla_gpu_that_is_gone": False})
    assert compiling.known_options() == {}


def test_a_program_is_compiled_once_for_a_shape_as_by_jit(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    traced = []

    @compiling.Program
    def double(x: jax.Array) -> jax.Array:
        """Twice."""
        traced.append(x.shape)
        return 2 * x

    assert [float(double(jnp.asarray(x))) for x in (1.0, 2.0)] == [2.0, 4.0]
    assert traced == [()]
    assert (double.__name__, double.__doc__, double._cache_size()) == ("double", "Twice.", 1)
    assert "stablehlo" in double.lower(jnp.ones(3)).as_text()
    double.clear_cache()
    assert double._cache_size() == 0


def test_learning_is_such_a_program():
    assert isinstance(programs.advance, compiling.Program)
