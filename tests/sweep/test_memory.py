"""Too little memory: narrower batches, the same members, and a note of it."""

import os

import jax
import numpy as np
import pytest
from small_sweep import experiment, same

import rnn_dynamics as rd
from rnn_dynamics.sweep import memory, program, work
from rnn_dynamics.sweep.report import report

CONFIG = {"network__num_seeds": 4, "record__observables": [], "compute__chunk_size": 4}


def refuse_more_than(most, monkeypatch):
    """A device that has memory for so many members."""
    original = program.advance
    widths = []

    def advance(learner, state, *rest):
        widths.append(len(state.status))
        if len(state.status) > most:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating")
        return original(learner, state, *rest)

    advance.lower = original.lower
    monkeypatch.setattr(program, "advance", advance)
    return widths


def test_batches_are_halved_until_they_fit(tmp_path, monkeypatch, caplog):
    """Chunks of 4 in batches of 2, the bits of which are those of a run with chunks of 2; resumed, they stay as narrow."""
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
    """Compiled for 2 members it needs about half of what it needs for 4: the limit tells the width."""
    plan = rd.plan(experiment(**CONFIG))
    values = plan.values_of(np.arange(4))
    begun = program.begin(plan.experiment, 6, values, plan.seeds[:4])
    of = (begun.learner, begun.state, begun.targets, jax.numpy.int32(0), jax.numpy.int32(1))
    lowered = program.advance.lower(*of, jax.numpy.zeros(4), jax.numpy.zeros(()))
    needs = lowered.compile().memory_analysis()
    state = sum(leaf.nbytes for leaf in jax.tree.leaves(begun.state))
    assert needs.alias_size_in_bytes == state  # what it becomes takes its place
    made = needs.output_size_in_bytes - needs.alias_size_in_bytes
    total = needs.argument_size_in_bytes + made + needs.temp_size_in_bytes
    monkeypatch.setattr(work, "most_bytes", lambda: int(0.75 * total))
    run = rd.run(experiment(**CONFIG), tmp_path / "run", progress=False)
    assert run.store.manifest["widths"] == {"0": 2}
    monkeypatch.setattr(work, "most_bytes", lambda: total)
    run = rd.run(experiment(**CONFIG), tmp_path / "enough", progress=False)
    assert run.store.manifest["widths"] == {}


def test_two_members_that_are_too_many_are_an_error_that_says_so(tmp_path, monkeypatch):
    refuse_more_than(1, monkeypatch)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Out of memory"):
        rd.run(experiment(**CONFIG), tmp_path / "run", progress=False)


def test_the_memory_of_this_machine_is_known():
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 2**28 < memory.host_bytes() <= total
    limit = memory.most_bytes()
    assert limit is not None
    assert 2**27 < limit < total
