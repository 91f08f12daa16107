"""The coefficients satisfy their order conditions, and the steps converge at that order."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnn_dynamics.ode import RODAS5P, TSIT5, solve
from rnn_dynamics.ode.solver import StepInterpolant

METHODS = (TSIT5, RODAS5P)
# Weights of each method, and the order that they are of.
ORDERS = [
    (TSIT5, "b", 5),
    (TSIT5, "b_hat", 4),
    (RODAS5P, "b", 5),
    (RODAS5P, "b_hat", 4),
]


def rooted_trees(order):
    """Rooted trees as sorted tuples of their children."""
    if order == 1:
        return [()]
    trees = set()
    for sizes in partitions(order - 1):
        for children in itertools.product(*(rooted_trees(size) for size in sizes)):
            trees.add(tuple(sorted(children)))
    return sorted(trees)


def partitions(total, largest=None):
    largest = total if largest is None else largest
    if total == 0:
        yield ()
    for first in range(min(total, largest), 0, -1):
        for rest in partitions(total - first, first):
            yield (first, *rest)


def num_vertices(tree):
    return 1 + sum(num_vertices(child) for child in tree)


def density(tree):
    return num_vertices(tree) * math.prod(density(child) for child in tree)


def elementary_weight(tree, several, single):
    """Vector over stages; a vertex with one child sees `single`, with several children `several`.

    For a Rosenbrock method these are beta and alpha (Hairer and Wanner II, IV.7), for an explicit
    method both are a.
    """
    matrix = single if len(tree) == 1 else several
    weight = np.ones(len(several))
    for child in tree:
        weight = weight * (matrix @ elementary_weight(child, several, single))
    return weight


def matrices(method):
    if method is not RODAS5P:
        return method.a, method.a
    return method.alpha, method.alpha + method.Gamma


def largest_residual(method, weights, order):
    several, single = matrices(method)
    return max(
        abs(weights @ elementary_weight(tree, several, single) - 1.0 / density(tree))
        for n in range(1, order + 1)
        for tree in rooted_trees(n)
    )


def test_there_are_37_trees_up_to_order_six():
    assert [len(rooted_trees(n)) for n in range(1, 7)] == [1, 1, 2, 4, 9, 20]


# Coefficients of 16 digits, up to 170 in size, multiplied up to four times over: 1e-12. An estimate
# is only an estimate where the embedded solution is really of lower order.
@pytest.mark.parametrize(("method", "weights", "order"), ORDERS, ids=repr)
def test_all_order_conditions_hold_and_none_beyond(method, weights, order):
    weights = getattr(method, weights)
    assert largest_residual(method, weights, order) < 1e-12
    assert largest_residual(method, weights, order + 1) > 1e-5


def field(t, y):
    """Nonlinear and non-autonomous, with the solution (sin t, cos t) + (0, 1)."""
    x, z = y[0], y[1] - 1.0
    pull = x**2 + z**2 - 1.0
    # The last term vanishes on the solution only: f_t and all its mixed derivatives are at work.
    return jnp.stack((z - pull * x, -x - pull * z)) + (x - jnp.sin(t)) * jnp.cos(3.0 * t) * y


def exact(t):
    return np.array([np.sin(t), np.cos(t) + 1.0])


def integrate(method, num_steps, end=2.0):
    """Fixed steps; returns the errors of the solution and of one embedded step from the start."""
    h = jnp.asarray(end / num_steps)

    def body(i, carry):
        t, y, dy, first = carry
        y, dy, error, *_ = method.step(field, t, y, dy, h, None)
        return t + h, y, dy, jnp.where(i == 0, error, first)

    t, y = jnp.zeros(()), jnp.asarray(exact(0.0))
    carry = (t, y, field(t, y), jnp.zeros_like(y))
    _, y, _, first = jax.jit(lambda c: jax.lax.fori_loop(0, num_steps, body, c))(carry)
    return np.linalg.norm(y - exact(end)), np.linalg.norm(first)


# Halving steps of 1/64, where errors of 1e-12 are still clear of rounding; the next term of the
# error of Tsit5 is large and shifts the slope by 0.28 there, by half of that after each halving.
# The estimate is the local error of a solution of order 4.
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_measured_order_is_the_declared_one(method):
    coarse, coarse_estimate = integrate(method, 128)
    fine, fine_estimate = integrate(method, 256)
    assert math.log2(coarse / fine) == pytest.approx(method.order, abs=0.35)
    local = method.embedded_order + 1
    assert math.log2(coarse_estimate / fine_estimate) == pytest.approx(local, abs=0.35)


# The next term of the error shifts the slope by 0.1 at the first halving, by half of that at the
# next.
def test_records_within_a_step_have_its_local_order():
    def field(t, y):
        return y * jnp.cos(t)

    def error(h):
        h, t, y = jnp.asarray(h), jnp.asarray(0.3), jnp.exp(jnp.sin(jnp.asarray([0.3])))
        dy, shares = field(t, y), jnp.linspace(0.0, 1.0, 21)[:-1]
        y1, dy1, _, _, middle = TSIT5.step(field, t, y, dy, h, None)
        step = StepInterpolant(t, y, dy, t + h, y1, dy1, middle)
        inside = jax.vmap(step.evaluate)(t + shares * h)
        # of the polynomial itself: to rounding
        np.testing.assert_array_equal(inside[0], y)
        np.testing.assert_allclose(inside[10], y + middle, rtol=1e-15)
        np.testing.assert_array_equal(step.evaluate(t + h), y1)
        return float(jnp.max(abs(inside[:, 0] - jnp.exp(jnp.sin(t + shares * h)))))

    errors = [error(h) for h in (0.1, 0.05, 0.025)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(5.0, abs=0.15)
    assert math.log2(errors[1] / errors[2]) == pytest.approx(5.0, abs=0.08)


def test_a_record_costs_a_step_of_the_explicit_pair_nothing():
    def count(num):
        solved = solve(lambda t, y, a: -y, 1.0, np.linspace(0.0, 4.0, num))
        np.testing.assert_allclose(solved.ys, np.exp(-np.linspace(0.0, 4.0, num)), rtol=1e-7)
        return int(solved.stats.num_evaluations)

    assert count(2) == count(5) == count(300)


# f = cos t exposes methods whose two solutions coincide on quadratures.
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_the_error_estimate_sees_a_quadrature(method):
    t, y, h = jnp.zeros(()), jnp.zeros(1), jnp.asarray(0.5)

    def f(t, y):
        return jnp.cos(t) + 0.0 * y

    y1, _, error, *_ = method.step(f, t, y, f(t, y), h, None)
    assert abs(float(error[0])) > abs(float(y1[0]) - math.sin(0.5))


def amplification(z):
    """R(z) of RODAS5P, as one step of size 1 of y' = z y from y = 1."""
    t, y, h = jnp.zeros(()), jnp.ones(1), jnp.ones(())
    made = RODAS5P.step(lambda t, y: z * y, t, y, z * y, h, None)
    return float(made.y[0])


# R(z) ~ 1/z at infinity, with a constant of order ten; rounding leaves 1e-13.
@pytest.mark.parametrize("z", [-1e3, -1e6, -1e9, -1e12])
def test_rodas5p_is_l_stable(z):
    assert abs(amplification(z)) < 20.0 / abs(z) + 1e-12


def test_rodas5p_is_a_stable():
    # |R| <= 1 on the imaginary axis, as rotations written in real numbers; 1e-12 for rounding.
    def norm(omega):
        rotation = omega * jnp.asarray([[0.0, 1.0], [-1.0, 0.0]])
        t, y, h = jnp.zeros(()), jnp.asarray([1.0, 0.0]), jnp.ones(())
        made = RODAS5P.step(lambda t, y: rotation @ y, t, y, rotation @ y, h, None)
        return jnp.linalg.norm(made.y)

    assert float(jnp.max(jax.vmap(norm)(jnp.geomspace(1e-2, 1e6, 200)))) < 1.0 + 1e-12


def test_wrong_coefficients_are_refused():
    c = TSIT5.c.copy()
    c[2] += 1e-6
    with pytest.raises(ValueError, match="Method `TSIT5` violates the row sums"):
        dataclasses.replace(TSIT5, c=c)
    b_hat = TSIT5.b_hat.copy()
    b_hat[:2] += (1e-6, -1e-6)
    with pytest.raises(ValueError, match=r"violates the condition sum_i b_hat_i c_i\^1 = 1/2"):
        dataclasses.replace(TSIT5, b_hat=b_hat)
    lower = RODAS5P.C.copy()
    lower[7, 6] += 1e-6
    with pytest.raises(ValueError, match="Method `RODAS5P` violates the condition"):
        dataclasses.replace(RODAS5P, C=lower)
