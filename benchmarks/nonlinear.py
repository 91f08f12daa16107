"""Cost per member and step of training tanh networks on sampled noise, beside a page of JAX
(`vmap` of `scan` with `jax.grad`) and one of PyTorch.

All draw fresh noise, make one step of gradient descent on W, u and v of all members, and take turns
in one process. `ratio` is to `SampledLoss` in the same turn. `MB_per_member` is what XLA's programs
take beside their arguments, and of PyTorch what autograd saves. `error` is the relative distance of
a step of W from that of the page of JAX in float64 on the same noise.

    python benchmarks/nonlinear.py [--units 64] [--members 64] [--trials 32] [--steps 250]
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from typing import Any

import harness
import jax
import jax.numpy as jnp
import numpy as np
import torch

import rnn_dynamics as rd

TARGET, TIME_STEP, LEARNING_RATE = 0.2, 0.1, 0.02


def page(network: Any, noise: jax.Array) -> jax.Array:
    """The loss as a user of JAX writes it; noise is (trials, steps)."""

    def step(carry: Any, x: jax.Array) -> Any:
        h, y = carry
        h = h + TIME_STEP * (jnp.tanh(h) @ network.W.T - h + x[:, None] * network.u)
        y = y + TIME_STEP * (x - TARGET * y)
        return (h, y), jnp.tanh(h) @ network.v - y

    start = jnp.zeros((len(noise), network.num_units), noise.dtype), jnp.zeros_like(noise[:, 0])
    return jnp.mean(jax.lax.scan(step, start, noise.T)[1] ** 2) / 2


def torch_loss(parameters: Any, noise: torch.Tensor) -> torch.Tensor:
    """The same of all members at once; noise is (members, trials, steps)."""
    W, u, v = parameters
    h = torch.zeros(*noise.shape[:2], W.shape[-1], dtype=W.dtype)
    y, errors = torch.zeros_like(noise[..., 0]), []
    for x in noise.unbind(-1):
        h = h + TIME_STEP * (torch.tanh(h) @ W.mT - h + x[..., None] * u[:, None])
        y = y + TIME_STEP * (x - TARGET * y)
        errors.append((torch.tanh(h) @ v[..., None])[..., 0] - y)
    return (torch.stack(errors) ** 2).mean((0, 2)).sum() / 2


def torch_call(networks: Any, shape: tuple[int, ...]) -> tuple[Any, float]:
    """A step of all members, and bytes that autograd saves."""
    arrays = map(np.array, (networks.W, networks.u, networks.v))
    own = [torch.tensor(x, requires_grad=True) for x in arrays]
    saved: dict[int, int] = {}

    def step() -> Any:
        noise = torch.randn(*shape, dtype=own[0].dtype) / TIME_STEP**0.5
        slopes = torch.autograd.grad(torch_loss(own, noise), own)
        return own[0].detach() - LEARNING_RATE * slopes[0]

    def count(x: torch.Tensor) -> torch.Tensor:
        saved[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
        step()
    return step, sum(saved.values())


def main() -> None:
    """Measure, report."""
    options = harness.parser(str(__doc__))
    for name, default in {"units": 64, "members": 64, "trials": 32, "steps": 250}.items():
        options.add_argument(f"--{name}", type=int, default=default)
    options.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    given = options.parse_args()
    jax.config.update("jax_enable_x64", True)
    target = rd.leaky_integrator(TARGET).astype(given.dtype)
    loss = rd.SampledLoss(given.steps * TIME_STEP, TIME_STEP, given.trials)

    keys = jax.random.split(jax.random.key(0), given.members)
    linear = jax.vmap(lambda key: rd.random_rnn(key, given.units, 0.5).astype(given.dtype))(keys)
    networks = jax.vmap(lambda rnn: rd.NonlinearRNN(rnn.W, rnn.u, rnn.v))(linear)
    gradients = {
        "SampledLoss": lambda net, key: loss.estimate(net, target, key).gradient,
        "JAX page": lambda net, key: jax.grad(page)(net, loss.noise(key, given.dtype)),
    }
    noise = jax.vmap(lambda key: loss.noise(key, given.dtype))(keys).astype(float)
    exact = jax.jit(jax.vmap(jax.grad(page)))(networks.astype(float), noise).W
    calls, rows = {}, {}
    for name, gradient in gradients.items():

        def step(net: Any, key: jax.Array, gradient: Any = gradient) -> Any:
            return jax.tree.map(lambda x, g: x - LEARNING_RATE * g, net, gradient(net, key))

        program = jax.jit(jax.vmap(step)).lower(networks, keys).compile()
        calls[name] = lambda program=program: program(networks, keys)
        size = program.memory_analysis().temp_size_in_bytes
        found = (networks.W - calls[name]().W).astype(float) / LEARNING_RATE
        rows[name] = size, float(jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact))
    calls["PyTorch page"], size = torch_call(networks, (given.members, given.trials, given.steps))
    rows["PyTorch page"] = size, float("nan")
    seconds = harness.interleaved(calls, given.repeats)
    settings = {name: getattr(given, name) for name in ("units", "members", "trials", "steps")}
    table = []
    for name, (size, error) in rows.items():
        ratio = float(np.median(seconds[name] / seconds["SampledLoss"]))
        row = {"name": name, "dtype": given.dtype, **settings, "ratio": ratio, "error": error}
        cost = harness.summary(seconds[name], 1e6 / given.members)
        row |= {"MB_per_member": size / given.members / 1e6}
        table.append(row | {f"us_{key}": value for key, value in cost.items()})
    harness.write("nonlinear", table, given.out)


if __name__ == "__main__":
    main()
