"""A sweep of four small networks, for tests of runs on disk."""

import shutil

import xarray as xr

from rnn_dynamics.sweep.config.loading import make_experiment


def experiment(**changes):
    tables = {
        "target": {"kind": "leaky_integrator", "decay": 0.3},
        "network": {"num_units": 6, "weight_scale": [0.1, 0.3], "num_seeds": 2},
        "learning": {"learning_rate": 0.05, "num_steps": 40},
        "record": {"num": 3},
        "compute": {"chunk_size": 2},
    }
    for key, value in changes.items():
        section, name = key.split("__")
        tables.setdefault(section, {})[name] = value
    return make_experiment(tables)


def copy(run, tmp_path):
    return shutil.copytree(run.directory, tmp_path / "copy")


def same(first, second):
    xr.testing.assert_identical(first.dataset, second.dataset)
    xr.testing.assert_identical(first.theory, second.theory)
