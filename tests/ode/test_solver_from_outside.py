"""A solver from outside: a step, and what it remembers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import parameters, relative

import rnn_dynamics as rd


class Heun(rd.ode.AbstractSolver):
    """Order 2, with Euler's step as its estimate."""

    embedded_order = 1

    def step(self, f, t, y, dy, h, state):
        ahead = f(t + h, y + h * dy)
        y1 = y + h * (dy + ahead) / 2
        return rd.ode.Step(y1, f(t + h, y1), h * (ahead - dy) / 2, count=2)


class Cautious(Heun):
    """The same, by steps of at most 1/64, which it counts."""

    def init(self, dy):
        return jnp.zeros((), jnp.int32)

    def prepare(self, f, t, y, dy, h, state, rejected):
        context = super().prepare(f, t, y, dy, h, state, rejected)
        return context._replace(state=state + 1, largest=1 / 64)


HEUN, CAUTIOUS = Heun(), Cautious()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_it_solves(dtype):
    ts = jnp.linspace(0.0, 2.0, 5, dtype=dtype)
    found = rd.ode.solve(
        lambda t, y, args: -args * y, jnp.ones(2, dtype), ts, 1.5, method=HEUN, rtol=1e-4, atol=1e-6
    )
    assert found.status == rd.Status.ok
    np.testing.assert_allclose(found.ys[:, 0], np.exp(-1.5 * np.asarray(ts)), rtol=1e-3)


def test_its_order_shows_in_the_number_of_steps():
    """The estimate is of order 2: a tolerance that is 100 times as tight takes 10 times as many
    steps.
    """
    counts = [
        int(
            rd.ode.solve(
                lambda t, y, args: jnp.cos(t) * y, 1.0, [0.0, 10.0], method=HEUN, rtol=rtol
            ).stats.num_steps
        )
        for rtol in (1e-4, 1e-6)
    ]
    assert counts[1] / counts[0] == pytest.approx(10.0, rel=0.15)


def test_it_remembers_and_limits_its_steps():
    state = rd.ode.start(lambda t, y, args: -y, 0.0, jnp.ones(1), method=CAUTIOUS, rtol=1e-2)
    state = rd.ode.advance(lambda t, y, args: -y, state, 1.0, method=CAUTIOUS, rtol=1e-2)
    assert int(state.stats.num_steps) >= 64
    assert int(state.solver_state) == int(state.stats.num_steps + state.stats.num_rejected)


def test_a_flow_takes_it():
    rnn, target = rd.random_rnn(jax.random.key(0), 6, 0.3), rd.leaky_integrator(0.5)
    times = jnp.linspace(0.0, 2.0, 3)
    own = rd.gradient_flow(rnn, target, times, method=HEUN, rtol=1e-6, atol=1e-8)
    exact = rd.gradient_flow(rnn, target, times)
    assert own.status == rd.Status.ok
    assert relative(parameters(own.rnn), parameters(exact.rnn)) < 1e-4
    batch = jax.vmap(lambda rnn: rd.gradient_flow(rnn, target, times, method=HEUN, rtol=1e-6).loss)
    losses = batch(jax.tree.map(lambda x: jnp.stack([x, 0.5 * x]), rnn))
    np.testing.assert_allclose(losses[0], own.loss, rtol=1e-4)


def test_a_solver_without_a_step_is_none():
    class Empty(rd.ode.AbstractSolver):
        embedded_order = 1

    with pytest.raises(TypeError, match="abstract"):
        Empty()
    with pytest.raises(TypeError, match="or another AbstractSolver, but is"):
        rd.ode.solve(lambda t, y, args: -y, 1.0, [0.0, 1.0], method="heun")
