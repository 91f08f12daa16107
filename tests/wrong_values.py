"""Values that arguments may not have, by what they should be."""

import datetime
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

import rnn_dynamics as rd


@functools.cache
def net():
    return rd.random_rnn(jax.random.key(0), 4, 0.3)


@functools.cache
def target():
    return rd.damped_oscillator(0.3, 1.0)


def batch():
    return jax.tree.map(lambda x: jnp.stack([x, x]), net())


NO_NUMBERS = st.sampled_from(
    [
        *(
            "0.1",
            "",
            "é",
            b"1",
            {},
            {"a": 1},
            set(),
            object(),
            print,
            len,
            datetime.date(2000, 1, 1),
        ),
        *(np.array("a"), np.array([None]), np.array(True), np.datetime64("2000-01-01"), type),
        *(1j, np.complex64(1), jnp.asarray(1j), [[1.0], [1.0, 2.0]], ["a"], [None], slice(3)),
    ]
) | st.text(max_size=8)
TYPED_KEY = st.just("typed key").map(lambda _: jax.random.key(3))
NOTHING = NO_NUMBERS | TYPED_KEY
NOT_FINITE = st.sampled_from(
    [
        math.nan,
        math.inf,
        -math.inf,
        10**400,
        -(10**400),
        10**4000,
        np.array(np.nan),
        np.float32("inf"),
    ]
)
NEGATIVE = st.floats(-1e300, -1e-300) | st.integers(-(10**30), -1) | st.just(np.array(-0.5))
NO_SCALAR = st.sampled_from([[], [0.1], (), (0.1, 0.2), np.ones(2), np.ones((1, 1)), jnp.ones(3)])
NO_REAL = NOTHING | NOT_FINITE | NO_SCALAR | st.booleans() | st.none()
UNSIGNED = NO_REAL | NEGATIVE
POSITIVE = UNSIGNED | st.sampled_from([0, 0.0, np.array(0.0), -0.0])
NO_INT = NOTHING | NO_SCALAR | st.booleans() | st.none() | st.floats()
COUNT = NO_INT | st.integers(-(10**30), 0) | st.sampled_from([2**31, 10**400, 10**4000])
LENGTH = NO_INT | st.integers(-(10**30), -1) | st.sampled_from([61, 10**400, 10**4000])
RNN = NOTHING | NOT_FINITE | NO_SCALAR | st.none() | st.just(0).map(lambda _: batch())
UNSTABLE = RNN | st.just(0).map(lambda _: rd.leaky_integrator(0.0))
KEY = NO_NUMBERS | NOT_FINITE | NO_SCALAR | st.booleans() | st.integers() | st.just([0, 1])
NO_OBJECT = NOTHING | NOT_FINITE | NO_SCALAR | st.booleans() | st.integers()
TIMES = (
    NOTHING
    | NOT_FINITE
    | st.sampled_from(
        [
            None,
            0.0,
            3,
            [],
            [1.0, 0.5],
            [0.0, 0.0],
            [-1.0, 0.0],
            [[0.0, 1.0]],
            [0.0, math.nan],
            [0.0, "a"],
            np.ones((2, 2)),
            np.array([0.0, np.inf]),
            [0.0, [1.0]],
            [10**400],
            [0, None],
        ]
    )
)
OVERLAP = NO_REAL | st.floats(1.0001, 1e300) | st.floats(-1e300, -1.0001)
WORD = NOTHING | NOT_FINITE | st.booleans() | st.none() | st.sampled_from([["uniform"], np.ones(2)])
DTYPE = st.sampled_from(["int32", int, bool, complex, "é", "", 3, [], {}, object(), "float63"])
SQUARE = NOTHING | st.sampled_from(
    [
        None,
        0.1,
        3,
        [],
        [[]],
        np.ones(3),
        np.ones((2, 3)),
        np.ones((2, 2), int),
        np.full((2, 2), np.nan),
    ]
)
NO_ARRAY = NO_NUMBERS.filter(lambda x: not isinstance(x, complex | np.complex64 | jax.Array))
NO_ARRAY |= TYPED_KEY | st.none()
SPECTRUM = NO_ARRAY | st.sampled_from([3.0, np.ones((1, 1, 1)), [[1.0], [1.0, 2.0]]])
INITIAL = (
    NOTHING
    | NOT_FINITE
    | st.sampled_from(
        [
            None,
            (),
            (0.1,),
            [0.1] * 9,
            np.ones((3, 1)),
            0.1,
            (0.1, 0.1, 2.0),
            (1.5, 0, 0, 0.3, 0.1),
            (0.1, math.nan, 0.0),
            ("a", 0.1, 0.1),
            (0.1, None, 0.1),
            (0.1, 0.1, 1j),
            (10**400, 0.1, 0.1),
        ]
    )
)
TOLERANCE = (POSITIVE | st.just(True)).filter(lambda x: x is not None)
INFINITE = (repr(math.inf), repr(np.float32("inf")))
# None is no learning rate
RATE = POSITIVE.filter(lambda x: x is not None)
