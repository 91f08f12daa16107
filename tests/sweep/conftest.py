import pytest
from small_sweep import experiment

import rnn_dynamics as rd


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "finished"
    theories = {"theory__models": ["word_subspace", "single_outlier"]}
    return rd.run(experiment(**theories), directory, progress=False)
