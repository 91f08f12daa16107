"""Too little memory: narrower batches, the same members, and a note of it."""

import os

import jax
import numpy as np
import pytest
from small_sweep import experiment, same

import rnn_dynamics as rd
from rnn_dynamics import cli
from rnn_dynamics.sweep.config.loading import to_toml
from rnn_dynamics.sweep.engine import programs, scheduler
from rnn_dynamics.sweep.engine.probe import probe
from rnn_dynamics.sweep.plan import memory, summary
from rnn_dynamics.sweep.plan.memory import OutOfMemoryError
from rnn_dynamics.sweep.report import report

CONFIG = {"network__num_seeds": 4, "record__observables": [], "compute__chunk_size": 4}


def refuse_more_than(most, monkeypatch):
    """A device that has memory for so many members."""
    original = programs.advance
    widths = []

    def advance(learner, state, *rest):
        widths.append(len(state.status))
        if len(state.status) > most:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating")
        return original(learner, state, *rest)

    advance.lower = original.lower
    monkeypatch.setattr(programs, "advance", advance)
    return widths


def segment_bytes(plan, width):
    """What a compiled segment of so many members needs."""
    values, units = plan.values_of(np.arange(width)), plan.groups[0].num_units
    begun = programs.begin(plan.experiment, units, values, plan.seeds[:width])
    of = (begun.learner, begun.state, begun.targets, jax.numpy.int32(0), jax.numpy.int32(1))
    lowered = programs.advance.lower(*of, jax.numpy.zeros(width), jax.numpy.zeros(()))
    needs = lowered.compile().memory_analysis()
    state = sum(leaf.nbytes for leaf in jax.tree.leaves(begun.state))
    assert needs.alias_size_in_bytes == state  # what it becomes takes its place
    made = needs.output_size_in_bytes - needs.alias_size_in_bytes
    return needs.argument_size_in_bytes + made + needs.temp_size_in_bytes


def test_batches_are_halved_until_they_fit(tmp_path, monkeypatch, caplog):
    """Chunks of 4 in batches of 2, the bits of which are those of a run with chunks of 2; resumed,
    they stay as narrow.
    """
    narrow = rd.run(
        experiment(**CONFIG | {"compute__chunk_size": 2}), tmp_path / "narrow", progress=False
    )
    widths = refuse_more_than(3, monkeypatch)
    run = rd.run(experiment(**CONFIG), tmp_path / "run", progress=False)
    assert widths[0] == 4
    assert set(widths[1:]) == {2}
    assert "4 members at once need too much memory" in caplog.text
    np.testing.assert_array_equal(run.dataset.loss, narrow.dataset.loss)
    assert run.store.manifest["widths"] == {"0": 2}
    assert [row["width"] for row in run.store.manifest["chunks"]] == [2, 2]
    assert "width       2 members at once in group 0" in report(run)[0]
    (run.directory / "chunks" / "00001.npz").unlink()
    widths.clear()
    same(rd.run(experiment(**CONFIG), run.directory, progress=False), run)
    assert set(widths) == {2}


def test_what_a_compiled_segment_needs_is_known_before_it_runs(tmp_path, monkeypatch):
    """Compiled for 2 members it needs about half of what it needs for 4: the limit tells the
    width.
    """
    total = segment_bytes(rd.plan(experiment(**CONFIG)), 4)
    monkeypatch.setattr(scheduler, "most_bytes", lambda: int(0.75 * total))
    run = rd.run(experiment(**CONFIG), tmp_path / "run", progress=False)
    assert run.store.manifest["widths"] == {"0": 2}
    monkeypatch.setattr(scheduler, "most_bytes", lambda: total)
    run = rd.run(experiment(**CONFIG), tmp_path / "enough", progress=False)
    assert run.store.manifest["widths"] == {}


def test_two_members_that_are_too_many_are_an_error_that_says_so(tmp_path, monkeypatch, capsys):
    refuse_more_than(1, monkeypatch)
    with pytest.raises(OutOfMemoryError, match="2 networks at once need too much memory: RESOURCE"):
        rd.run(experiment(**CONFIG), tmp_path / "run", progress=False)
    path = tmp_path / "config.toml"
    path.write_text(to_toml(experiment(**CONFIG)))
    out = str(tmp_path / "again")
    assert cli.main(["run", str(path), "--out", out, "--quiet"]) == cli.BAD_INPUT
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line.startswith("2 networks at once need too much memory")


def test_a_chunk_far_too_large_is_halved_before_its_networks_are_drawn(tmp_path, monkeypatch):
    plan = rd.plan(experiment(**CONFIG))
    widths, original = [], programs.begin

    def begin(*given):
        widths.append(len(given[3]))
        return original(*given)

    monkeypatch.setattr(programs, "begin", begin)
    monkeypatch.setattr(scheduler, "most_bytes", lambda: int(0.4 * plan.bytes_of(4)))
    run = rd.run(experiment(**CONFIG), tmp_path / "run", progress=False)
    assert set(widths) == {2}
    assert run.complete


HUGE = {
    "network__num_units": 16384,
    "record__num": None,
    "record__every": 1,
    "record__weights": "all",
    "learning__num_steps": 4000,
}


@pytest.mark.core
def test_what_no_machine_can_hold_is_refused_before_anything_is_made(tmp_path, capsys):
    """Two networks of 16,384 units with all of their weights at 4,000 records: 34 TB."""
    config = experiment(**HUGE)
    with pytest.raises(OutOfMemoryError, match="2 networks of up to 16384 units"):
        rd.run(config, tmp_path / "run", progress=False)
    with pytest.raises(OutOfMemoryError, match="2 networks of up to 16384"):
        probe(config)
    path, out = tmp_path / "config.toml", tmp_path / "run"
    path.write_text(to_toml(config))
    for command in (["run", str(path), "--out", str(out), "--quiet"], ["plan", str(path)]):
        capsys.readouterr()
        assert cli.main(command) == cli.BAD_INPUT
        found = capsys.readouterr()
        text = found.err if command[0] == "run" else found.out
        (line,) = [x for x in text.splitlines() if "2 networks of up to 16384 units" in x]
        assert "TB" in line
        assert "Traceback" not in found.err
    assert not out.exists()


@pytest.mark.core
def test_a_plan_says_that_a_chunk_does_not_fit_and_which_would(tmp_path, capsys, monkeypatch):
    wide = {"network__num_units": 64, "network__num_seeds": 16, "compute__chunk_size": 32}
    layout = rd.plan(experiment(**wide))
    least = layout.bytes_of(2)
    assert layout.shortage(least * layout.chunk_size) == ""
    why = layout.shortage(8 * least)  # a half of it may be taken, of which 8 members are as much
    assert why.startswith("A chunk of 32 networks needs about ")
    assert why.endswith("`compute.chunk_size` must be at most 8.")
    assert layout.shortage(0.9 * least).startswith("2 networks of up to 64 units need")
    assert [layout.devices_that_fit(n * least) for n in (0.1, 2, 9)] == [1, 1, 4]
    narrow = rd.plan(experiment(**wide | {"compute__chunk_size": 8}))
    assert narrow.shortage(8 * least) == ""
    for module in (summary, memory):
        monkeypatch.setattr(module, "host_bytes", lambda: 8.0 * least)
    path = tmp_path / "config.toml"
    path.write_text(to_toml(experiment(**wide)))
    assert cli.main(["plan", str(path)]) == cli.BAD_INPUT
    assert "must be at most 8." in capsys.readouterr().out
    assert cli.main(["plan", str(path), "--set", "compute.chunk_size=8"]) == cli.DONE


SAMPLED = {"loss": "sampled", "horizon": 100.0, "time_step": 0.1, "batch_size": 512}


@pytest.mark.parametrize("learning", [{}, SAMPLED, {"horizon": 20.0}])
def test_the_estimate_is_near_what_a_compiled_segment_needs(learning):
    """A plan must neither promise what does not fit nor refuse what does."""
    changes = {f"learning__{key}": value for key, value in learning.items()}
    layout = rd.plan(experiment(network__num_units=64, record__num=2, **changes))
    needed = segment_bytes(layout, 2)
    assert 0.6 * needed < layout.bytes_of(2) < 1.7 * needed


def test_the_memory_of_this_machine_is_known():
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 2**28 < memory.host_bytes() <= total
    limit = memory.most_bytes()
    assert limit is not None
    assert 2**27 < limit < total
