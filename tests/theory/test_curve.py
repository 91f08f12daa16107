"""How the curve of a theory prints itself."""

import jax.numpy as jnp

import rnn_dynamics as rd
from rnn_dynamics.theory.curve import TheoryCurve


def curve(status: rd.Status, made: int) -> TheoryCurve:
    nan = jnp.nan * jnp.ones(4 - made)
    loss = jnp.concatenate([jnp.asarray([1.0, 0.5, 0.25, 0.125])[:made], nan])
    eigenvalues = jnp.where(jnp.isfinite(loss), 0.9, jnp.nan)[:, None] + 0j
    return TheoryCurve(jnp.asarray([0.0, 1.0, 2.0, 3.0]), loss, eigenvalues, {}, jnp.int32(status))


def test_a_curve_that_ends_well():
    lines = str(curve(rd.Status.ok, 4)).splitlines()
    assert lines[0] == "TheoryCurve, 4 records to learning time 3: ok"
    assert lines[1] == "  loss         1 -> 0.125"


def test_a_failure_prints_as_one():
    lines = str(curve(rd.Status.max_steps, 2)).splitlines()
    assert lines[0] == "TheoryCurve, max steps after record 2 of 4 (before learning time 2)"
    assert lines[1] == "  loss         1 -> 0.5"
    assert "nan" not in lines[2]
