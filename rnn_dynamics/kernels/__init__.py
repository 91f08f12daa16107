"""Sources of what XLA does slowly, in C for CPUs and in CUDA for GPUs, compiled on the machine that
runs them and called by XLA.

Who has no C compiler loses nothing but speed: what is here is done by JAX as well. JAX is not
needed to import this.
"""

from rnn_dynamics.kernels.build import Library, library
from rnn_dynamics.kernels.cuda.nvrtc import compiled

__all__ = ["Library", "compiled", "library"]
