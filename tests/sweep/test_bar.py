"""The progress bar counts what is done, also by earlier processes, and never ends a run."""

import io
import sys

import pytest
from small_sweep import experiment

import rnn_dynamics as rd
from rnn_dynamics.sweep.engine.progress_bar import Bar

CONFIG = {"compute__chunk_size": 2, "network__weight_scale": [0.1, 0.3], "network__num_seeds": 2}


def last_line(capsys):
    return capsys.readouterr().err.rstrip("\n").rpartition("\r")[2]


@pytest.mark.core
def test_the_bar_of_a_resumed_run_ends_at_100_percent(tmp_path, capsys):
    """The first process is interrupted within the second chunk, whose first records are saved."""
    config = experiment(**CONFIG)
    count = 0

    def interrupted():
        nonlocal count
        count += 1
        return count > len(rd.plan(config).groups[0].ticks) + 1

    with pytest.raises(KeyboardInterrupt):
        rd.run(config, tmp_path, interrupted=interrupted)
    line = last_line(capsys)
    assert "1 of 2 chunks" in line
    assert "100%" not in line
    rd.run(config, tmp_path)
    line = last_line(capsys)
    assert line.startswith("100% |##########| 2 of 2 chunks, ")
    rd.run(config, tmp_path)
    assert capsys.readouterr().err == ""


@pytest.fixture(params=[False, True])
def stream(request):
    """None, as where no console is, or a closed one."""
    if not request.param:
        return None
    closed = io.StringIO()
    closed.close()
    return closed


@pytest.mark.parametrize("columns", ["0", "-1", "wide", "5"])
def test_a_bar_that_cannot_be_drawn_is_left_out(monkeypatch, stream, columns):
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", columns)
    with Bar({0: 3, 1: 3}, [0], shown=True) as bar:
        bar.update(1, 0.5)
        bar.remark(" waiting")
        bar.finish(1)
