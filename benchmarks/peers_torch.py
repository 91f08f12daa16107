"""Peers in torch: backpropagation through time, and the algorithm of columns in batches.

`torch.compile` is left out. Of backpropagation it compiles 25 of the 250 steps in a minute and is
then no faster (measured with torch 2.13 on a CPU), and solvers of LAPACK it leaves as they are.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from peers_problem import (
    LEARNING_RATE,
    NUM_CHECKED,
    NUM_LOOPED,
    NUM_STEPS,
    NUM_TRIALS,
    SAMPLED,
    TARGET,
    TIME_STEP,
    Networks,
    Peer,
    first,
)

Parameters = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

threads_of: dict[Any, int] = {}

SHIFT, NUM_COLUMNS = 0.8, 12  # relative errors below 1e-8 at the start of this benchmark


def on_device(networks: Networks, dtype: torch.dtype, device: str) -> Parameters:
    """Arrays of NumPy as torch's."""
    W, u, v = (torch.tensor(x, dtype=dtype, device=device) for x in networks)
    return W, u, v


def numpy(parameters: Parameters) -> Networks:
    """Arrays of torch as NumPy's, in float64."""
    W, u, v = (x.detach().cpu().double().numpy() for x in parameters)
    return W, u, v


def stacked(networks: list[Networks]) -> Networks:
    """A batch of single networks."""
    W, u, v = (np.stack(parts) for parts in zip(*networks, strict=True))
    return W, u, v


def arrived(trained: torch.Tensor) -> torch.Tensor:
    """Wait for the device."""
    if trained.is_cuda:
        torch.cuda.synchronize()
    return trained


def with_threads(
    kind: str, units: int, call: Callable[[], torch.Tensor]
) -> tuple[Callable[[], torch.Tensor], int]:
    """The call with one thread or one per core, and how many: what is faster, which for small
    matrices is often one.
    """

    def seconds(threads: int) -> float:
        torch.set_num_threads(threads)
        call()
        began = time.perf_counter()
        call()
        return time.perf_counter() - began

    if (kind, units) not in threads_of:
        threads_of[kind, units] = min((1, os.cpu_count() or 1), key=seconds)
    threads = threads_of[kind, units]

    def limited() -> torch.Tensor:
        torch.set_num_threads(threads)
        return call()

    return limited, threads


# --- backpropagation through time


def noise(members: int, like: torch.Tensor) -> torch.Tensor:
    """White noise of variance 1/dt, (members, steps, trials)."""
    shape = (members, NUM_STEPS, NUM_TRIALS)
    return torch.randn(shape, dtype=like.dtype, device=like.device) / TIME_STEP**0.5


@torch.no_grad()
def targets(x: torch.Tensor) -> torch.Tensor:
    """What the leaky integrator makes of noise (members, steps, trials), by the same Euler
    steps.
    """
    y, outputs = torch.zeros_like(x[:, 0]), []
    for now in x.unbind(1):
        y = (1 - TIME_STEP * TARGET) * y + TIME_STEP * now
        outputs.append(y)
    return torch.stack(outputs, 1)


def sampled_loss(
    W: torch.Tensor, u: torch.Tensor, v: torch.Tensor, x: torch.Tensor, wanted: torch.Tensor
) -> torch.Tensor:
    """Squared error of one network, averaged over time and trials: Euler steps, all trials at
    once.
    """
    identity = torch.eye(len(u), dtype=W.dtype, device=W.device)
    step = (1 - TIME_STEP) * identity + TIME_STEP * W.mT
    h, states = torch.zeros_like(x[0][:, None] * u), []
    for kick in (x[..., None] * (TIME_STEP * u)).unbind(0):
        h = torch.addmm(kick, h, step)
        states.append(h)
    return torch.mean((torch.stack(states) @ v - wanted) ** 2) / 2


def backpropagation_loop(networks: Networks, device: str) -> Peer:
    """A loop over networks with `torch.optim.SGD`, in float32."""
    some = on_device(first(networks, NUM_LOOPED), torch.float32, device)
    count = len(some[0])

    def train() -> torch.Tensor:
        trained = []
        for index in range(count):
            W, u, v = (x[index].clone().requires_grad_() for x in some)
            optimizer = torch.optim.SGD([W, u, v], lr=LEARNING_RATE)
            x = noise(1, some[0])
            optimizer.zero_grad()
            sampled_loss(W, u, v, x[0], targets(x)[0]).backward()
            optimizer.step()
            trained.append(W.detach())
        return arrived(torch.stack(trained))

    def gradient() -> Networks:
        found = []
        for index in range(min(count, NUM_CHECKED)):
            W, u, v = (x[index].clone().requires_grad_() for x in some)
            x = noise(1, some[0])
            loss = sampled_loss(W, u, v, x[0], targets(x)[0])
            dW, du, dv = torch.autograd.grad(loss, (W, u, v))
            found.append(numpy((dW, du, dv)))
        return stacked(found)

    call, threads = with_threads("loop", some[0].shape[-1], train)
    name = "torch loop, backpropagation through time"
    return Peer(name, "float32", count, 1, call, gradient, noise=SAMPLED, threads=threads)


def backpropagation_vmap(networks: Networks, device: str, most: int) -> Peer:
    """The same under `torch.func.vmap`."""
    some = on_device(first(networks, most), torch.float32, device)
    gradients = torch.func.vmap(torch.func.grad(sampled_loss, argnums=(0, 1, 2)))

    def sampled(parameters: Parameters) -> Parameters:
        x = noise(len(parameters[0]), parameters[0])
        return gradients(*parameters, x, targets(x))

    call, threads = with_threads(
        *("vmap", some[0].shape[-1]), lambda: arrived(descend(sampled, some, 1)[0])
    )
    return Peer(
        *("torch vmap, backpropagation through time", "float32", len(some[0]), 1, call),
        lambda: numpy(sampled(on_device(first(networks, NUM_CHECKED), torch.float32, device))),
        noise=SAMPLED,
        threads=threads,
    )


def descend(
    gradient: Callable[[Parameters], Parameters], parameters: Parameters, steps: int
) -> Parameters:
    """Plain gradient descent of a batch."""
    for _ in range(steps):
        W, u, v = (
            x - LEARNING_RATE * g for x, g in zip(parameters, gradient(parameters), strict=True)
        )
        parameters = W, u, v
    return parameters


# --- columns


@torch.no_grad()
def column_gradients(parameters: Parameters) -> Parameters:
    """Exact gradients of a batch: controllability and observability in the Laguerre basis of time.

    x₀ = √(2p) B u and x_{j+1} = (2p B - 1) x_j with B = (p + A)⁻¹, likewise z with Aᵀ and v; ∂L/∂W
    = Z (Zᵀ X - z* x*ᵀ) Xᵀ. One LU decomposition and two triangular solutions per column: faster
    here than products with an inverse, and than two-sided Arnoldi.
    """
    W, u, v = parameters
    p = SHIFT
    identity = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)
    LU, pivots = torch.linalg.lu_factor((1 + p) * identity - W)

    def columns(start: torch.Tensor, adjoint: bool) -> torch.Tensor:
        solved = torch.linalg.lu_solve(LU, pivots, start[..., None], adjoint=adjoint)
        found = [(2 * p) ** 0.5 * solved]
        for _ in range(NUM_COLUMNS - 1):
            solved = torch.linalg.lu_solve(LU, pivots, found[-1], adjoint=adjoint)
            found.append(2 * p * solved - found[-1])
        return torch.cat(found, -1)

    X, Z = columns(u, False), columns(v, True)
    powers = torch.arange(NUM_COLUMNS, dtype=W.dtype, device=W.device)
    wanted = (2 * p) ** 0.5 / (p + TARGET) * ((p - TARGET) / (p + TARGET)) ** powers
    core = torch.bmm(Z.mT, X) - torch.outer(wanted, wanted)
    by_u = torch.bmm(Z.mT, u[..., None]) - wanted[:, None]
    by_v = torch.bmm(X.mT, v[..., None]) - wanted[:, None]
    dW = torch.bmm(torch.bmm(Z, core), X.mT)
    return dW, torch.bmm(Z, by_u)[..., 0], torch.bmm(X, by_v)[..., 0]


def columns_batched(networks: Networks, device: str) -> Peer:
    """All members in one batch, in float64."""
    some, steps = on_device(networks, torch.float64, device), 5
    checked = on_device(first(networks, NUM_CHECKED), torch.float64, device)
    call, threads = with_threads(
        *("columns", some[0].shape[-1]),
        lambda: arrived(descend(column_gradients, some, steps)[0]),
    )
    return Peer(
        *("torch, columns in batches", "float64", len(some[0]), steps, call),
        lambda: numpy(column_gradients(checked)),
        threads=threads,
    )
