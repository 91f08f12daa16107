"""C sources of what XLA does slowly on CPUs, compiled on the machine that runs them and called by XLA.

Who has no C compiler loses nothing but speed: what is here is done by JAX as well. JAX is not needed to import this.
"""

from rnn_dynamics.native.build import Library, library

__all__ = ["Library", "library"]
