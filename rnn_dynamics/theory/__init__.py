"""Low-dimensional theories of learning, from the simplest to the most general."""

from rnn_dynamics.theory.convergence import Convergence, converged_length
from rnn_dynamics.theory.curve import TheoryCurve
from rnn_dynamics.theory.linearised import (
    largest_learning_rate,
    linearised_rates,
    outlier_rates,
)
from rnn_dynamics.theory.pairs.best_one_mode import OneMode, best_one_mode
from rnn_dynamics.theory.pairs.conjugate_pair import conjugate_pair
from rnn_dynamics.theory.pairs.events import EVENTS, event_times
from rnn_dynamics.theory.pairs.pair_start import pair_start
from rnn_dynamics.theory.plateaus.minimal_norm import minimal_norm
from rnn_dynamics.theory.plateaus.staircase import Escape, Staircase, escape, staircase
from rnn_dynamics.theory.readout_only import learnable, readout_only, required_readout_norm
from rnn_dynamics.theory.sampling_noise import (
    gradient_covariance,
    gradient_covariance_product,
    minibatch_loss,
)
from rnn_dynamics.theory.single_outlier import outlier_start, single_outlier
from rnn_dynamics.theory.spectral_motion import (
    SpectralMotion,
    eigenvalue_velocity,
    spectral_motion,
)
from rnn_dynamics.theory.wide.gaussian_closure import ClosedRNN, ClosureCurve, gaussian_closure
from rnn_dynamics.theory.wide.infinite_width import infinite_width, low_rank_infinite_width
from rnn_dynamics.theory.wide.overlaps import OverlapCurve, overlaps
from rnn_dynamics.theory.wide.word_subspace import num_words, word_subspace

__all__ = [
    "EVENTS",
    "ClosedRNN",
    "ClosureCurve",
    "Convergence",
    "Escape",
    "OneMode",
    "OverlapCurve",
    "SpectralMotion",
    "Staircase",
    "TheoryCurve",
    "best_one_mode",
    "conjugate_pair",
    "converged_length",
    "eigenvalue_velocity",
    "escape",
    "event_times",
    "gaussian_closure",
    "gradient_covariance",
    "gradient_covariance_product",
    "infinite_width",
    "largest_learning_rate",
    "learnable",
    "linearised_rates",
    "low_rank_infinite_width",
    "minibatch_loss",
    "minimal_norm",
    "num_words",
    "outlier_rates",
    "outlier_start",
    "overlaps",
    "pair_start",
    "readout_only",
    "required_readout_norm",
    "single_outlier",
    "spectral_motion",
    "staircase",
    "word_subspace",
]
