"""Low-dimensional theories of learning, from the simplest to the most general."""

from rnn_dynamics.theory.curve import TheoryCurve
from rnn_dynamics.theory.single_outlier import outlier_start, single_outlier
from rnn_dynamics.theory.word_subspace import num_words, word_subspace

__all__ = ["TheoryCurve", "num_words", "outlier_start", "single_outlier", "word_subspace"]
