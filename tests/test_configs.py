"""The configs of this repository: each says what it shows, loads, can be planned, and asks for the
figure that shows it.
"""

from pathlib import Path
from types import SimpleNamespace

import pytest

import rnn_dynamics as rd
from rnn_dynamics.plotting.figures import NEEDS

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.toml"))
FIGURES = {
    "oscillator": "pair_paths",
    "rich_to_lazy": "rich_to_lazy",
    "sampled_noise": "noise",
    "perfect_integrator": "horizons",
    "staircase": "staircase",
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_states_its_claim_and_can_be_planned(path):
    assert path.read_text().startswith("# Claim: ")
    experiment = rd.load_experiment(path)
    layout = rd.plan(experiment)
    assert layout.num_members == experiment.num_members
    assert "compile groups" in str(layout)
    if path.stem in FIGURES:
        run = SimpleNamespace(experiment=experiment)
        assert NEEDS[FIGURES[path.stem]](run) == ""
