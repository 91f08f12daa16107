"""Wrong arguments of the public functions: each is an error that names the argument, before
anything is traced.
"""

import inspect

import jax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from public_calls import CALLS
from small_sweep import experiment

import rnn_dynamics as rd

CASES = [(call, right, name, wrong) for call, right, bad in CALLS for name, wrong in bad.items()]


def made(value):
    """A right argument, which a function may make on demand."""
    if value is jax.random.key:
        return jax.random.key(0)
    fresh = inspect.isfunction(value) or hasattr(value, "cache_info")
    return value() if fresh else value


def test_wrong_arguments_are_named():
    tried, seen = 0, set()

    @settings(
        max_examples=2500,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, len(CASES) - 1).flatmap(lambda i: st.tuples(st.just(i), CASES[i][3])))
    def check(case):
        nonlocal tried
        index, value = case
        call, right, name, _ = CASES[index]
        arguments = {key: made(item) for key, item in right.items()} | {name: value}
        with pytest.raises((ValueError, TypeError)) as caught:
            call(**arguments)
        message = str(caught.value)
        shown = {rd.Rates: "rates.", rd.Stop: "stop."}.get(call, "") + name
        assert f"Argument `{shown}` must " in message, (call, name, message)
        assert message.endswith("."), message
        assert "\n" not in message
        assert len(message) < 300
        assert type(caught.value) in (ValueError, TypeError)
        tried += 1
        seen.add(index)

    check()
    assert tried >= 2000
    assert seen == set(range(len(CASES)))


@pytest.mark.parametrize("index", range(len(CALLS)))
def test_the_names_are_those_of_arguments(index):
    call, right, bad = CALLS[index]
    known = inspect.signature(call).parameters
    assert set(right) | set(bad) <= set(known)


def test_every_public_function_is_tried():
    public = [getattr(room, name) for room in (rd, rd.theory, rd.ode) for name in room.__all__]
    untried = {x for x in public if inspect.isfunction(x)} - {call for call, _, _ in CALLS}
    # `parallel` takes its argument by position, `use_compile_cache` changes this process; the
    # others take what these functions return
    own = {rd.parallel, rd.use_compile_cache}
    assert untried == own | {rd.plan, rd.run, rd.open_run, rd.overlay}


@pytest.mark.parametrize("wrong", [None, 3, "config.toml", {"target": 1}])
def test_what_is_no_experiment_or_run_is_named(wrong, tmp_path):
    for call in (rd.plan, lambda x: rd.run(x, tmp_path / "run")):
        with pytest.raises(TypeError, match="Argument `experiment` must be an Experiment, as from"):
            call(wrong)
    for call in (rd.overlay, *rd.plot.FIGURES.values(), rd.plot.save_figures, rd.plot.fitting):
        with pytest.raises(TypeError, match="Argument `run` must be a Run, as from open_run, but"):
            call(wrong)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("wrong", [None, 3, ["runs"], b"runs"])
def test_what_is_no_directory_is_named(wrong):
    for call in (rd.open_run, lambda x: rd.run(experiment(), x)):
        with pytest.raises(TypeError, match="Argument `directory` must be a text or a Path, but"):
            call(wrong)
