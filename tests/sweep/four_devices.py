"""Run by test_devices.py in a process of its own that has four CPU devices; what it prints is an
error.

python four_devices.py FOLDER (one of CHECKS)
"""

import os
import re
import sys
from functools import partial
from pathlib import Path

os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=4"

import jax
import numpy as np
from small_sweep import experiment

import rnn_dynamics as rd
from rnn_dynamics.sweep.config.loading import make_experiment
from rnn_dynamics.sweep.engine import programs, scheduler

jax.config.update("jax_enable_x64", True)

FLOW = {"method": "gradient_flow", "train_time": 1.0}
SAMPLED = {"learning_rate": 0.02, "num_steps": 6, "loss": "sampled", "horizon": 4.0}
SAMPLED |= {"time_step": 0.5, "batch_size": 3, "optimizer": "adam"}
THEORIES = ["single_outlier", "infinite_width"]


def sweep(learning):
    """A sweep of 5 chunks; theories with descent."""
    scales = {"network__weight_scale": [0.1, 0.2, 0.3, 0.5, 0.7]}
    if learning is None:
        return experiment(**scales, theory__models=THEORIES)
    return make_experiment(experiment(**scales).tables() | {"learning": learning})


def chunks(run):
    return {path.name: path.read_bytes() for path in run.directory.glob("chunks/*.npz")}


def check_bits(folder, learning=None):
    config, original = sweep(learning), scheduler.devices_for
    many = rd.run(config, folder / "many", progress=False)
    assert many.provenance["sessions"][0]["devices"] == 4
    scheduler.devices_for = lambda most: original(1)
    one = rd.run(config, folder / "one", progress=False)
    scheduler.devices_for = original
    assert one.provenance["sessions"][0]["devices"] == 1
    assert len(chunks(one)) == 5
    assert chunks(many) == chunks(one)
    # begun on one device, gone on with on three
    for index in (1, 3, 4):
        (one.directory / "chunks" / f"{index:05d}.npz").unlink()
    assert chunks(rd.run(config, one.directory, progress=False)) == chunks(many)


def check_devices_are_used(folder):
    """Each device computes chunks of its own, with programs of one device: nothing is exchanged."""
    used, original = set(), scheduler.compute_part

    def compute_part(*arguments):
        used.add(jax.numpy.zeros(()).device)
        return original(*arguments)

    scheduler.compute_part = compute_part
    rd.run(experiment(network__num_seeds=10), folder / "used", progress=False)
    scheduler.compute_part = original
    assert used == set(jax.local_devices()), used
    plan = rd.plan(experiment())
    values, seeds = plan.values_of(np.arange(2)), plan.seeds[:2]
    with jax.default_device(jax.local_devices()[3]):
        _, targets, learner, state = programs.begin(plan.experiment, 6, values, seeds)
        of = (learner, state, targets, jax.numpy.int32(0), jax.numpy.int32(1), jax.numpy.zeros(2))
        text = programs.advance.lower(*of).compile().as_text()
    assert state.rnn.W.device == jax.local_devices()[3]
    assert "num_partitions" not in text
    kinds = "all-reduce|all-gather|all-to-all|reduce-scatter|collective-[a-z]+|send|recv"
    found = re.findall(rf" (?:{kinds})(?:-start)?\(", text)
    assert not found, found


def check_an_error_on_one_device_stops_the_others(folder):
    calls, original = [], scheduler.compute_part

    def compute_part(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise ValueError("on one device")
        return original(*arguments)

    scheduler.compute_part = compute_part
    config = experiment(network__num_seeds=30)
    try:
        rd.run(config, folder / "error", progress=False)
    except ValueError as error:
        assert str(error) == "on one device"
    else:
        raise AssertionError
    scheduler.compute_part = original
    assert len(calls) < 30
    rd.run(config, folder / "error", progress=False)
    assert chunks(rd.run(config, folder / "whole", progress=False)) == chunks(
        rd.open_run(folder / "error")
    )


def check_auto_chunks():
    config = experiment(network__num_seeds=50, compute__chunk_size="auto")
    assert rd.plan(config).chunk_size == 50
    assert rd.plan(config, jax.local_device_count()).chunk_size == 25


CHECKS = {
    "descent": check_bits,
    "flow": partial(check_bits, learning=FLOW),
    "sampled": partial(check_bits, learning=SAMPLED),
    "devices_are_used": check_devices_are_used,
    "error": check_an_error_on_one_device_stops_the_others,
    "auto_chunks": lambda folder: check_auto_chunks(),
}

if __name__ == "__main__":
    CHECKS[sys.argv[2]](Path(sys.argv[1]))
