"""Training of one network by gradient flow."""

from typing import Any

from jax.typing import ArrayLike

from rnn_dynamics import ode
from rnn_dynamics.learning.learner import GradientFlow, dtype_of
from rnn_dynamics.learning.parts import split
from rnn_dynamics.learning.rates import Rates, checked_rates
from rnn_dynamics.learning.stopping import Stop
from rnn_dynamics.learning.trajectory import Observe, Trajectory, Words, check_common, record
from rnn_dynamics.loss import AbstractLoss, PopulationLoss, SampledLoss
from rnn_dynamics.model.arguments import check_real, positive_int, record_times, require_type


def gradient_flow(
    network: Any,
    target: Any,
    train_time: ArrayLike,
    *,
    loss: AbstractLoss = PopulationLoss(),
    rates: Any = Rates(),
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int = 1_000_000,
    method: Any = ode.AUTO,
    stop: Stop = Stop(),
    observe: Observe | None = None,
    record_weights: bool = False,
) -> Trajectory:
    """Train a network by gradient flow.

        W' = -η_W ∂L/∂W,    u' = -η_u ∂L/∂u,    v' = -η_v ∂L/∂v        from τ = 0

    and likewise every array of another network.

    Args:
        network: the network at learning time 0: a `LinearRNN`, or any `eqx.Module` that the loss
            can differentiate, such as one with `.system()`; see `LowRankRNN`.
        target: what the loss takes: any network, stable if the horizon is infinite.
        train_time: learning times of the records, (R,), increasing, positive or zero.
        loss: by default `PopulationLoss()`.
        rates: by default all 1; `Rates` of a `LinearRNN`, or a network of this structure with a
            number or an array in the place of each array. 0 freezes.
        rtol: relative tolerance of the integration; by default 1e-8 in float64, 1e-5 in float32.
        atol: absolute tolerance, of W/√η_W, u/√η_u and v/√η_v; by default 1e-10 in float64, 1e-7
            in float32.
        max_steps: most attempted steps; then the status is `max_steps` and later records are NaN.
        method: a method of `rnn_dynamics.ode`, or an `AbstractSolver` of your own. The default is
            `TSIT5`, and, where the flow is stiff, as it is towards a long memory, an exponential
            method of order 4: it takes up to five directions that are stiff from the Jacobian, and
            the rest as an explicit method does.
        stop: criteria to stop at a record before the last.
        observe: what else is recorded, functions (network, target) → array by name.
        record_weights: whether the networks of all records are kept.

    Returns:
        The trajectory. Failure is a status, never an exception.

    Raises:
        TypeError: if the loss samples fresh noise, of which a flow knows nothing (one batch of it
            is `SampledLoss.fixed(key)`), or `network` or `rates` cannot be trained or do not fit
            each other.
        ValueError: if `train_time` is not increasing or the target has an infinite loss.

    Example:
        >>> trajectory = rd.gradient_flow(rnn, rd.leaky_integrator(0.2), [0.0, 1.0, 10.0])
        >>> rd.gradient_flow(
        ...     rnn, target, times, observe={"gain": lambda rnn, target: rnn.v @ rnn.u}
        ... ).observed["gain"]

    Source: sections 2 and 8 of docs/theory.md.
    """
    if isinstance(loss, SampledLoss):
        raise TypeError(
            "Argument `loss` must be a PopulationLoss for a gradient flow, such as "
            "`loss.expected`, or on one batch of noise, `loss.fixed(key)`, but is a SampledLoss."
        )
    check_common(network, target, loss, stop, observe)
    rates, dtype = checked_rates(rates, network), dtype_of(split(network)[0])
    require_type("method", method, ode.AbstractSolver, "a method of `ode`")
    times = record_times(train_time, dtype)
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        if tolerance is not None:
            check_real(name, tolerance, positive=True)
    limit = positive_int("max_steps", max_steps)
    learner = GradientFlow(loss, rates, rtol, atol, limit, method, stop)
    words = Words(remedy="another tolerance")
    return record(learner, network, target, times, times, words, observe, record_weights)
