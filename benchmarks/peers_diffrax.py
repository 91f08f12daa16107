"""diffrax and optax: the impulse response by an ODE solver, and its adjoint."""

from functools import partial

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from peers_jax import Parameters, numpy
from peers_problem import LEARNING_RATE, NUM_CHECKED, TARGET, Networks, Peer, first

# e^{-2 · 0.2 · 25} = 5e-5 of the energy is left out, as large as the error of the solver
HORIZON, NUM_NODES, TOLERANCE, CHECKPOINTS, MOST_STEPS = 25.0, 24, 1e-4, 32, 128
OPTIMIZER = optax.sgd(LEARNING_RATE)


def response_loss(parameters: Parameters) -> jax.Array:
    """½∫(k - k*)² dt by Gauss-Legendre quadrature of the impulse response.

    Faster than the integral as a further state, and than a constant step; the backsolve adjoint
    diverges.
    """
    W, u, v = parameters
    nodes, weights = np.polynomial.legendre.leggauss(NUM_NODES)
    times = jnp.asarray((nodes + 1) * HORIZON / 2)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, q, W: W @ q - q),
        diffrax.Tsit5(),
        *(0.0, HORIZON, 0.5, u),
        args=W,
        saveat=diffrax.SaveAt(ts=times),
        stepsize_controller=diffrax.PIDController(rtol=TOLERANCE, atol=TOLERANCE * 1e-2),
        adjoint=diffrax.RecursiveCheckpointAdjoint(checkpoints=CHECKPOINTS),
        max_steps=MOST_STEPS,
    )
    errors = solution.ys @ v - jnp.exp(-TARGET * times)
    return jnp.sum(jnp.asarray(weights * HORIZON / 2) * errors**2) / 2


@partial(jax.jit, static_argnames="steps")
def train(networks: Parameters, steps: int) -> Parameters:
    """Descent of all members."""

    def one(parameters: Parameters) -> Parameters:
        def step(_: int, carry: tuple[Parameters, optax.OptState]) -> tuple:
            parameters, memory = carry
            gradient = jax.grad(response_loss)(parameters)
            updates, memory = OPTIMIZER.update(gradient, memory)
            return optax.apply_updates(parameters, updates), memory

        start = (parameters, OPTIMIZER.init(parameters))
        return jax.lax.fori_loop(0, steps, step, start)[0]

    with jax.default_matmul_precision("highest"):
        return jax.vmap(one)(networks)


def impulse_response(networks: Networks, most: int) -> Peer:
    """Under vmap and jit, in float64."""
    some = tuple(jnp.asarray(x) for x in first(networks, most))
    steps = 2

    def gradient() -> Networks:
        checked = tuple(x[:NUM_CHECKED] for x in some)
        return numpy(jax.jit(jax.vmap(jax.grad(response_loss)))(checked))

    return Peer(
        *("diffrax and optax, vmap", "float64", len(some[0]), steps),
        *(lambda: jax.block_until_ready(train(some, steps)[0]), gradient),
        program=("diffrax", *some[0].shape),
    )
