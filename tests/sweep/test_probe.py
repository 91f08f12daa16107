"""The probe's arithmetic, by a clock on which only training takes time: the truth is what a run
takes on the same clock.
"""

import numpy as np
import pytest
from small_sweep import experiment

import rnn_dynamics as rd
from rnn_dynamics import cli
from rnn_dynamics.sweep.config.loading import make_experiment
from rnn_dynamics.sweep.engine import probe as module
from rnn_dynamics.sweep.engine import programs
from rnn_dynamics.sweep.engine.probe import Estimate, probe, probed_ticks
from rnn_dynamics.sweep.plan.memory import OutOfMemoryError

SMALL = {"record__observables": ["num_gradients"], "network__num_units": 5}


class Clock:
    """A stopwatch that is moved by hand."""

    run = compiling = 0.0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    @property
    def timings(self):
        total = self.run + self.compiling
        return {
            "seconds": total,
            "compile_seconds": self.compiling,
            "run_seconds": self.run,
        }


class Advance:
    """The program that learns: a record takes 1 s, each gradient `price`, and each new shape 7 s of
    compiling.

    More than `most` members are too many.
    """

    def __init__(self, clock, price, most):
        self.clock, self.price, self.most, self.shapes = clock, price, most, set()
        self.real = programs.advance

    def __call__(self, learner, state, *rest):
        shape = state.rnn.W.shape
        if shape[0] > self.most:
            raise OutOfMemoryError("too many")
        before = np.array(state.num_gradients)
        after = self.real(learner, state, *rest)
        gradients = np.max(np.asarray(after[0].num_gradients) - before)
        self.clock.run += 1 + self.price(learner) * float(gradients)
        if shape not in self.shapes:
            self.clock.compiling += 7
        self.shapes.add(shape)
        return after

    def __getattr__(self, name):
        return getattr(self.real, name)


@pytest.fixture
def compare(monkeypatch, tmp_path):
    """A probe's estimate, and what tells how long the run takes on the same clock."""

    def both(config, seconds, price=lambda _: 2.0, most=2):
        clock = Clock()
        monkeypatch.setattr(module, "MOST_SECONDS", np.inf)
        monkeypatch.setattr(module, "Stopwatch", lambda: clock)
        monkeypatch.setattr(programs, "advance", Advance(clock, price, most))
        estimate, before = probe(config, seconds), clock.run

        def true():
            rd.run(config, tmp_path / "run", progress=False)
            return clock.run - before

        return estimate, true

    return both


def test_the_command_prints_what_was_measured_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "small.toml"
    config.write_text(
        """
        target = { kind = "leaky_integrator", decay = 0.3 }
        network = { num_units = 5, weight_scale = [0.1, 0.3], num_seeds = 2 }
        learning = { learning_rate = 0.05, num_steps = 40 }
        record = { num = 3, observables = ["num_gradients"] }
        compute = { chunk_size = 2 }
        """
    )
    assert cli.main(["plan", str(config), "--probe"]) == cli.DONE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("members         4 = ")
    starts = ["probe           took", "  running       about", "  compiling     about"]
    assert [line.rsplit(" ", 2)[0] for line in lines[-3:]] == starts
    assert list(tmp_path.iterdir()) == [config]


def test_times_are_printed_in_units_in_which_they_are_short():
    text = str(Estimate(run_seconds=100, compile_seconds=7.34, probe_seconds=8000))
    assert [line.split()[-2:] for line in text.splitlines()] == [
        ["2.22", "h"],
        ["1.7", "min"],
        ["7.3", "s"],
    ]


@pytest.mark.parametrize("seconds", [30.0, 1e6])
def test_descents_cost_their_records_and_steps(compare, seconds):
    """Two groups, chunks and a theory, probed in part and to the end."""
    theory = {"theory__models": ["word_subspace"], "theory__word_subspace": {"max_length": 0}}
    config = experiment(learning__num_steps=[40, 60], **theory, **SMALL)
    estimate, true = compare(config, seconds)
    expected = 2 * 2 * (2 * 3 + 2 * (40 + 60))
    assert true() == expected
    assert estimate.run_seconds == pytest.approx(expected)
    assert estimate.compile_seconds == 14
    assert (estimate.probe_seconds < expected / 2) == (seconds < 100)


def test_chunks_that_are_not_probed_lie_between_those_that_are(compare, monkeypatch):
    monkeypatch.setattr(module, "MOST_CHUNKS", 2)
    rates = [0.01, 0.02, 0.03, 0.04, 0.05]
    config = experiment(network__weight_scale=0.1, learning__learning_rate=rates, **SMALL)

    def price(learner):
        return 100 * float(learner.hyperparameters["learning_rate"][0])

    estimate, true = compare(config, 10.0, price)
    assert true() == pytest.approx(5 * 3 + 40 * 15)
    assert estimate.run_seconds == pytest.approx(5 * 3 + 40 * 15)


def test_batches_that_need_too_much_memory_are_halved(compare, monkeypatch):
    monkeypatch.setattr(module, "most_bytes", lambda: None)
    estimate, _ = compare(experiment(compute__chunk_size=4, **SMALL), 10.0)
    assert estimate.run_seconds == pytest.approx(2 * (3 + 2 * 40))


def test_gradients_of_a_flow_and_its_end_are_foreseen(compare, monkeypatch):
    """By what learns alike for less, and is compiled for the probe alone: here a network of so few
    units is its own words.
    """
    foresee = module._Prober._foreseen

    def nearly_free(self, *arguments):
        advance = programs.advance
        kept = advance.price, advance.shapes
        advance.price, advance.shapes = lambda _: 0.1, set()
        found = foresee(self, *arguments)
        advance.price, advance.shapes = kept
        return found

    monkeypatch.setattr(module._Prober, "_foreseen", nearly_free)
    tables = experiment(record__num=21, **SMALL).tables()
    flow = {"method": "gradient_flow", "train_time": 8.0, "stop": {"loss": 0.03}}
    estimate, true = compare(make_experiment(tables | {"learning": flow}), 500.0)
    seconds = true()
    assert estimate.probe_seconds < seconds
    assert estimate.run_seconds == pytest.approx(seconds, rel=0.25)
    assert estimate.compile_seconds == 7


def test_records_of_a_probe_are_ever_further_apart():
    steps = np.array([0, 20, 40, 60, 500], np.int32)
    found = probed_ticks(steps)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, [0, 0, 1, 2, 4, 8, 16, 40, 500])
    times = probed_ticks(np.linspace(0, 4.0, 6))
    np.testing.assert_allclose(times[:12], [0, 0, *4.0 / 2 ** np.arange(12, 2, -1.0)])
    np.testing.assert_allclose(times[12:], [1.6, 2.4, 4.0])
