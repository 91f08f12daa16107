"""The staircase: plateaus, escapes and arrival times of learning from small weights (section 9 of
docs/theory.md).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics.loss import PopulationLoss
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.arguments import check_real, positive_int, require, require_type
from rnn_dynamics.theory.plateaus.minimal_norm import as_rnn, least, require_known
from rnn_dynamics.theory.plateaus.small_networks import Arrays, Matching, arrays, pack, unpack

AMPLITUDE = 1e-3  # of the unit that leaves a plateau
NUM_STARTS, STEPS_OF_A_START = 4, 200  # from which a lower plateau is looked for
LEARNED = 1e-12  # loss relative to that of no network
STUCK = 1e-8  # escape rate relative to its largest possible value
LOWER = 1e-8  # loss relative to that of no network


class Escape(NamedTuple):
    """How a plateau is left: a silent unit grows like e^{rate τ}.

    Attributes:
        rate: largest singular value of M, ().
        inputs: (u_e, W_{e,·}) of the unit, (N + 1,), of norm 1.
        outputs: (v_e, W_{·,e}) of the unit, (N + 1,), of norm 1.
    """

    rate: jax.Array
    inputs: jax.Array
    outputs: jax.Array


class Staircase(NamedTuple):
    """Plateaus 0, 1, … K of learning from small weights, and what is known of their order in time.

    Attributes:
        loss: of the plateaus, (K + 1,).
        eigenvalues: of W on plateau k, (k,) complex, for each.
        rnns: the networks of least norm on the plateaus, of k units; a silent unit for k = 0.
        escape_rate: rate at which the next mode grows, (K + 1,); 0 once the target is learned.
        best_loss: lowest loss of any network of k units that was found, (K + 1,). Below `loss`
            where the best network of k units is not on the way.
        end: why there are no more plateaus, in a sentence.
    """

    loss: jax.Array
    eigenvalues: list[jax.Array]
    rnns: list[LinearRNN]
    escape_rate: jax.Array
    best_loss: jax.Array
    end: str

    def arrival_times(self, weight_scale: float) -> np.ndarray:
        """Learning times at which modes 1, … K arrive, up to a constant for each, (K,).

            τ_{k+1} = Σ_{i ≤ k} ln(1 / weight_scale) / σ_i + const

        The constants are the same for all weight scales ε, so that differences between two scales
        are predicted: exact for ε → 0, to two digits at 1e-2. They depend on the initial network.

        Args:
            weight_scale: the size ε of all of W, u and v at τ = 0, between 0 and 1.
        """
        check_real("weight_scale", weight_scale, positive=True)
        require(weight_scale < 1, "weight_scale", "be below 1", weight_scale)
        rates = np.asarray(self.escape_rate, np.float64)[:-1]
        return -np.log(float(weight_scale)) * np.cumsum(1 / rates)

    def __str__(self) -> str:
        rows = [" modes  loss          escape rate   eigenvalues"]
        for k, (loss, rate) in enumerate(zip(self.loss, self.escape_rate, strict=True)):
            values = np.array2string(np.asarray(self.eigenvalues[k]), precision=4)[1:-1]
            rows.append(f" {k:5d}  {loss:<12.6g}  {rate:<12.6g}  {' '.join(values.split())}")
        return "\n".join([*rows, self.end])


def staircase(
    target: LinearRNN, max_modes: int | None = None, *, loss: PopulationLoss = PopulationLoss()
) -> Staircase:
    """The plateaus of learning from small weights: networks of 0, 1, 2, … modes.

        ∂L/∂W = ∂L/∂u = ∂L/∂v = 0,  so that Ê(λ) = Ê'(λ) = 0 at every decay λ of the student

    From weights of size ε → 0 in all of W, u and v, a network of more units than modes learns one
    mode after another. Plateau k is the network of k units that gradient flow (rates 1) reaches
    from plateau k - 1 along its escape direction, in most cases the best of k units; `best_loss`
    says where a lower one was found, from several random starts. Found by exact gradients, then
    Newton's method, to rounding.

    A start of W(0) = 0 has another law: it stays in the span of u(0) and v(0), and learns two
    modes at most (`word_subspace` of length 0).

    Computed on the host in float64: a second for 4 modes, half a minute for 8 modes or decays of
    0.001. It is not for jit, vmap or derivatives.

    Args:
        target: any stable `LinearRNN` of one input and one output.
        max_modes: most modes, by default the target's number of units.
        loss: a `PopulationLoss` over an infinite horizon, in continuous or discrete time.

    Returns:
        The plateaus up to the one that learns the target, or `max_modes`. A plateau that is not
        attained, or left at no finite rate, ends them: `end` says so, and no numbers are given.

    Raises:
        TypeError: if the loss is no `PopulationLoss`.
        ValueError: if the target is unstable or the horizon finite.

    Example:
        `rd.theory.staircase(rd.damped_oscillator(0.3, 1.0)).loss` is 0.45107, 0.17902, 0.

    Source: section 9 of docs/theory.md.
    """
    require_known(target=target)
    most = target.num_units if max_modes is None else positive_int("max_modes", max_modes)
    matching = _matching(target, loss)
    network: Arrays = unpack(np.zeros(0))
    whole = matching.loss(np.zeros(0))
    random = np.random.default_rng(0)
    networks, losses, best, rates, end = [network], [whole], [whole], [], ""
    while not end:
        k = len(losses)
        rate, inputs, outputs = _escape(matching, network)
        if losses[-1] <= LEARNED * whole:
            rate, end = 0.0, f"The target is learned with {k - 1} modes."
        elif rate <= STUCK * np.sqrt(losses[-1]):
            rate, end = 0.0, f"Plateau {k - 1} is left at no rate: no silent unit grows."
        elif k > most:
            end = f"No more than {most} modes were asked for."
        rates.append(rate)
        if end:
            break
        x, lower, converged = matching.descend(_with_unit(network, inputs, outputs))
        grown = least(unpack(x)) if converged else None
        if grown is None or lower >= losses[-1]:
            end = f"Plateau {k} is not attained: the flow from plateau {k - 1} finds no minimum."
            break
        network = grown
        networks.append(network)
        losses.append(max(lower, 0.0))
        best.append(_best(matching, k, losses[-1], whole, random))
    dtype = target.dtype
    real, complex_dtype = (lambda x: jnp.asarray(x, dtype)), np.result_type(dtype, np.complex64)
    silent = as_rnn(unpack(np.zeros(3)), dtype)
    return Staircase(
        loss=real(losses),
        eigenvalues=[jnp.asarray(np.linalg.eigvals(W), complex_dtype) for W, _, _ in networks],
        rnns=[silent, *(as_rnn(own, dtype) for own in networks[1:])],
        escape_rate=real(rates),
        best_loss=real(best),
        end=end,
    )


def escape(rnn: LinearRNN, target: LinearRNN, *, loss: PopulationLoss = PopulationLoss()) -> Escape:
    """The direction in which a silent unit, added to a network, grows, and its rate.

        L = L_k + sᵀ M r,    r' = -Mᵀ s,    s' = -M r,    r = (u_e, W_{e,·}),    s = (v_e, W_{·,e})

    On a plateau M = Ê(1) [1; -W⁻ᵀ v] [1; -W⁻¹ u]ᵀ has rank 1; here it is computed for any network,
    plateau or not, from Gramians. Computed on the host, in float64.

    Args:
        rnn: a stable network of N units.
        target: any stable target.
        loss: a `PopulationLoss` over an infinite horizon, in continuous or discrete time.

    Raises:
        TypeError: if the loss is no `PopulationLoss`.
        ValueError: if a network is unstable or the horizon finite.

    Example:
        `rd.theory.escape(staircase.rnns[1], target).rate`

    Source: section 9 of docs/theory.md.
    """
    require_known(rnn=rnn, target=target)
    matching = _matching(target, loss)
    network = arrays(rnn)
    require(matching.stable(network[0]), "rnn", "be stable", "not")
    found = _escape(matching, network)
    return Escape(*(jnp.asarray(x, rnn.dtype) for x in found))


def _matching(target: LinearRNN, loss: PopulationLoss) -> Matching:
    require_type("loss", loss, PopulationLoss, "a PopulationLoss")
    require(np.isinf(loss.horizon), "loss", "have an infinite horizon", f"of {loss.horizon}")
    white = getattr(loss, "input", None) is None
    require(white, "loss", "have white noise as its input", "one with a filter")
    loss.check(target)
    return Matching.of(target, loss)


def _escape(matching: Matching, network: Arrays) -> tuple[float, np.ndarray, np.ndarray]:
    """Rate, inputs and outputs of a silent unit beside a network."""
    outputs, rates, inputs = np.linalg.svd(matching.silent_unit(pack(*network)))
    return float(rates[0]), inputs[0], -outputs[:, 0]


def _with_unit(network: Arrays, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Parameters of the network with one more unit, of small weights along the escape."""
    W, u, v = network
    W = np.block([[W, AMPLITUDE * outputs[1:, None]], [AMPLITUDE * inputs[None, 1:], 0.0]])
    return pack(W, np.append(u, AMPLITUDE * inputs[0]), np.append(v, AMPLITUDE * outputs[0]))


def _best(
    matching: Matching, k: int, loss: float, whole: float, random: np.random.Generator
) -> float:
    """The lowest loss of k units from random starts, or the given one if none is lower."""
    size = whole**0.25  # of u and v
    found = []
    for _ in range(NUM_STARTS if loss > LEARNED * whole else 0):
        W = random.normal(size=(k, k)) / (2 * np.sqrt(k))
        W *= min(1.0, 0.9 / max(abs(np.linalg.eigvals(W))))
        start = pack(W, *(size * random.normal(size=(2, k))))
        if matching.stable(W):
            found.append(matching.descend(start, STEPS_OF_A_START))
    lowest = min([lower for _, lower, converged in found if converged], default=loss)
    return lowest if lowest < loss - LOWER * whole else loss
