"""Structured networks: fewer parameters than W, u and v, which `.system()` makes of them.

Whatever is an `eqx.Module` with `.system() -> LinearRNN` can be trained, by the gradient in its own
arrays: these are two dozen lines each. What the network calls `frozen` is not trained.
"""

import itertools
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from rnn_dynamics.model.arguments import is_traced, numbers, real_array, require
from rnn_dynamics.model.linear_rnn import LinearRNN, system_of


class LowRankRNN(eqx.Module):
    """A network with connections of low rank, on top of a fixed random bulk if there is one.

        W = bulk + U Vᵀ/N,    u = input,    v = readout/N

    With a rate of N on every vector, learning depends on their overlaps alone.

    Attributes:
        input: (N,) or (N, m).
        U: left factors, (N, r).
        readout: (N,) or (N, p).
        V: right factors, (N, r).
        bulk: (N, N), never trained, or None.

    Raises:
        TypeError: if an array is not a real floating-point one, or they differ in dtype.
        ValueError: if shapes do not fit each other, or a number is not finite.

    Example:
        >>> network = rd.LowRankRNN(m, U, z, V, bulk=rd.random_rnn(key, N, 0.5).W)
        >>> rates = jax.tree.map(lambda _: float(N), network)
        >>> rd.gradient_flow(network, target, [0.0, 1.0], rates=rates)

    Source: sections 8.4 and 10 of docs/theory.md.
    """

    input: jax.Array
    U: jax.Array
    readout: jax.Array
    V: jax.Array
    bulk: jax.Array | None

    frozen: ClassVar[tuple[str, ...]] = ("bulk",)

    def __init__(self, input: Any, U: Any, readout: Any, V: Any, bulk: Any = None) -> None:
        self.U = real_array("U", U, ("N", "r"))
        N, rank = self.U.shape
        require(0 not in self.U.shape, "U", "have a column", f"of shape {self.U.shape}")
        beside = f" beside `U` of shape {self.U.shape}"
        self.input = real_array("input", input, (N,), (N, "m"), beside=beside)
        self.readout = real_array("readout", readout, (N,), (N, "p"), beside=beside)
        self.V = real_array("V", V, (N, rank), beside=beside)
        self.bulk = None if bulk is None else real_array("bulk", bulk, (N, N), beside=beside)
        _require_one_dtype(jax.tree.leaves(self))

    def system(self) -> LinearRNN:
        """The network of N units."""
        N = len(self.U)
        with jax.default_matmul_precision("highest"):
            W = self.U @ self.V.T / N
        if self.bulk is not None:
            W = W + jax.lax.stop_gradient(self.bulk)
        return LinearRNN(W, self.input, self.readout / N)


class DiagonalRNN(eqx.Module):
    """Independent modes with complex decay rates.

        k(t) = Re Σ_i residues_i exp(-decays_i t)

    A gradient in it is complex as JAX has it: dL = Re Σ_i (∂L/∂r_i dr_i + ∂L/∂a_i da_i). The
    trainers take real and imaginary parts for parameters of their own.

    Attributes:
        decays: a, (N,) complex; the eigenvalues of the real network are 1 - a and their conjugates.
        residues: r, (N,) complex.

    Raises:
        TypeError: if they do not hold numbers, or differ in dtype.
        ValueError: if they have other shapes, or a number is not finite.

    Example:
        >>> rd.DiagonalRNN([0.3 + 1.0j, 0.5], [1.0, 0.2j])

    Source: section 8.4 of docs/theory.md.
    """

    decays: jax.Array
    residues: jax.Array

    def __init__(self, decays: Any, residues: Any) -> None:
        self.decays, self.residues = (
            _complex(name, value) for name, value in (("decays", decays), ("residues", residues))
        )
        shape = self.decays.shape
        require(len(shape) == 1 and shape[0] > 0, "decays", "have shape (N,)", f"of shape {shape}")
        fits = self.residues.shape == shape
        must = f"have the shape {shape} of `decays`"
        require(fits, "residues", must, f"of shape {self.residues.shape}")
        _require_one_dtype([self.decays, self.residues])

    def system(self) -> LinearRNN:
        """The real network of 2N units, the real and the imaginary part of each mode."""
        decay, frequency = (jnp.diag(part(self.decays)) for part in (jnp.real, jnp.imag))
        A = jnp.block([[decay, -frequency], [frequency, decay]])
        u = jnp.concatenate([self.residues.real, self.residues.imag])
        v = jnp.concatenate([jnp.ones(len(decay), A.dtype), jnp.zeros(len(decay), A.dtype)])
        return LinearRNN(jnp.eye(len(A), dtype=A.dtype) - A, u, v)


class StackedRNN(eqx.Module):
    """Networks in series: each gets the output of the one before it.

        h_l' = -h_l + W_l h_l + u_l x_l,    x_{l+1} = v_lᵀ h_l

    Attributes:
        layers: a tuple of `LinearRNN`s, or of other networks with `.system()`.

    Raises:
        TypeError: if one is no network, or dtypes differ.
        ValueError: if there is none, or a layer has other inputs than the one before has outputs.

    Example:
        >>> rd.StackedRNN([rd.random_rnn(key, 8, 0.5) for key in jax.random.split(key, 3)])

    Source: section 8.4 of docs/theory.md.
    """

    layers: tuple[Any, ...]

    def __init__(self, layers: Any) -> None:
        self.layers = tuple(layers)
        require(len(self.layers) > 0, "layers", "hold at least one network", "empty")
        systems = [system_of(f"layers[{i}]", layer) for i, layer in enumerate(self.layers)]
        for index, (before, after) in enumerate(itertools.pairwise(systems)):
            if before.num_outputs != after.num_inputs:
                raise ValueError(
                    f"Argument `layers[{index + 1}]` must have as many inputs as `layers[{index}]` "
                    f"has outputs, but `u` has shape {after.u.shape} and `v` {before.v.shape}."
                )
        _require_one_dtype([system.W for system in systems])

    def system(self) -> LinearRNN:
        """The network of all units, block by block."""
        systems = [layer.system() for layer in self.layers]
        sizes = [system.num_units for system in systems]
        N, dtype = sum(sizes), systems[0].dtype
        W, start, before = jnp.zeros((N, N), dtype), 0, None
        for system, size in zip(systems, sizes, strict=True):
            own = slice(start, start + size)
            W = W.at[own, own].set(system.W)
            if before is not None:
                into = system.u.reshape(size, -1) @ before.v.reshape(before.num_units, -1).T
                W = W.at[own, start - before.num_units : start].set(into)
            start, before = start + size, system
        first, last = systems[0], systems[-1]
        u = jnp.zeros((N, *first.u.shape[1:]), dtype).at[: sizes[0]].set(first.u)
        v = jnp.zeros((N, *last.v.shape[1:]), dtype).at[N - sizes[-1] :].set(last.v)
        return LinearRNN(W, u, v)


def _complex(name: str, value: Any) -> jax.Array:
    array = jnp.asarray(numbers(name, value, real=False))
    if not jnp.iscomplexobj(array):
        array = array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)
        array = jax.lax.complex(array, jnp.zeros_like(array))
    finite = is_traced(array) or bool(jnp.all(jnp.isfinite(array)))
    require(finite, name, "be finite", "an array with a NaN or an infinity in it")
    return array


def _require_one_dtype(arrays: list[jax.Array]) -> None:
    dtypes = list(dict.fromkeys(str(array.dtype) for array in arrays))
    if len(dtypes) > 1:
        raise TypeError(f"All arrays must have one dtype, but have {' and '.join(dtypes)}.")
