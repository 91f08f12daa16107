import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rnn_dynamics as rd


@functools.cache
def pairings(word):
    """Number of non-crossing pairings of each letter with the other one: the moments of a circular
    element.
    """
    if not word:
        return 1
    partners = range(1, len(word), 2)
    return sum(
        pairings(word[1:k]) * pairings(word[k + 1 :]) for k in partners if word[k] != word[0]
    )


def apply(rnn, word, x):
    """The word of W ("w") and Wᵀ ("t") applied to a vector."""
    for letter in reversed(word):
        x = (rnn.W if letter == "w" else rnn.W.T) @ x
    return x


WORDS = ["".join(word) for length in range(6) for word in itertools.product("wt", repeat=length)]


def descend(rnn, target, num_steps):
    return rd.gradient_descent(
        rnn, target, optimizer=optax.sgd(0.1), num_steps=num_steps, record_every=10
    )


def moment(word, scale, overlap):
    return scale ** len(word) * pairings(word) * overlap


@pytest.mark.core
@pytest.mark.parametrize("overlap", [0.0, 0.4, -1.0])
def test_moments_of_short_words_in_closed_form(overlap):
    """⟨x, word y⟩ is exact up to words of length 2ℓ+1: each half has a vector of at most ℓ letters,
    and one letter joins them.
    """
    scale = 0.7
    rnn = rd.theory.infinite_width(scale, 2.0, 3.0, overlap, max_length=2)
    assert rnn.num_units == rd.theory.num_words(2)
    for word in WORDS:
        got = [x @ apply(rnn, word, y) for x, y in ((rnn.u, rnn.u), (rnn.v, rnn.u))]
        expected = [4 * moment(word, scale, 1.0), 6 * moment(word, scale, overlap)]
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_moments_of_random_networks_of_large_width():
    """Norms and overlaps at N = 1000; they scatter by σ^length √(number of words)/√N, so six times
    1/√N bounds all of them.
    """
    scale, overlap = 0.8, 0.3
    rnn = rd.random_rnn(jax.random.key(0), 1000, scale, overlap=overlap)
    for word in WORDS[:31]:
        got = [rnn.u @ apply(rnn, word, rnn.u), rnn.v @ apply(rnn, word, rnn.u)]
        expected = [moment(word, scale, 1.0), moment(word, scale, overlap)]
        np.testing.assert_allclose(got, expected, rtol=0, atol=6 / np.sqrt(1000))


@pytest.mark.core
@pytest.mark.parametrize("index", range(3))
def test_reference_entries(reference, index):
    case = reference["large_width"][index]
    rnn = rd.theory.infinite_width(
        case["weight_scale"], overlap=case["overlap"], max_length=case["words"]
    )
    assert rnn.num_units == case["units"]
    got = rd.gradient_flow(rnn, rd.leaky_integrator(case["decay"]), case["train_time"])
    np.testing.assert_allclose(got.loss, case["loss"], rtol=0, atol=1e-9)
    top = got.eigenvalues.real.max(axis=1)
    # eigenvalues of the nearly nilpotent start are as uncertain as the fifth root of rounding
    np.testing.assert_allclose(top[1:], case["top_eigenvalue"][1:], rtol=0, atol=1e-6)


def test_numbers_of_the_theory_note_from_rich_to_lazy():
    """Section 3.5: plain gradient descent, learning rate 0.05, decay 0.5; loss at steps 20, 80,
    320, change of W at step 400.
    """
    table = {
        (0.3, 2): (1.496e-2, 4.61e-4, 8.27e-5, 0.3688),
        (0.6, 3): (9.36e-3, 2.3e-4, 4.5e-6, 0.2549),
        (0.8, 3): (1.305e-2, 2.6e-4, 7.5e-6, 0.1991),
    }
    for (scale, length), (*losses, change) in table.items():
        got = rd.gradient_descent(
            rd.theory.infinite_width(scale, max_length=length),
            rd.leaky_integrator(0.5),
            optimizer=optax.sgd(0.05),
            num_steps=400,
            record_every=20,
        )
        found = [float(got.loss[step // 20]) for step in (20, 80, 320)]
        assert found == pytest.approx(losses, rel=0.02)  # two digits are printed there
        assert float(got.weight_change[-1]) == pytest.approx(change, abs=1e-4)


def test_without_weights_two_units_are_exact():
    rnn = rd.random_rnn(jax.random.key(1), 20, 0.0, 0.5, 0.7, overlap=0.3)
    small = rd.theory.infinite_width(0.0, 0.5, 0.7, 0.3, max_length=0)
    full, theory = (descend(x, rd.damped_oscillator(0.4, 0.8), 100) for x in (rnn, small))
    for name in ("loss", "weight_change", "overlap", "input_norm", "output_norm"):
        np.testing.assert_allclose(getattr(theory, name), getattr(full, name), rtol=0, atol=1e-12)


def test_the_mean_of_networks_tends_to_it():
    """Distance of the mean loss of 16 networks of 48 units within 4 standard errors at every record
    (true for 99.99 % of draws).
    """
    target = rd.leaky_integrator(0.5)
    learn = jax.jit(jax.vmap(lambda rnn: descend(rnn, target, 30).loss))
    keys = jax.random.split(jax.random.key(0), 16)
    losses = np.asarray(learn(jax.vmap(lambda key: rd.random_rnn(key, 48, 0.4, overlap=0.0))(keys)))
    theory = descend(rd.theory.infinite_width(0.4), target, 30).loss
    error = losses.std(axis=0, ddof=1)[1:] / np.sqrt(len(losses))
    assert (np.abs(losses.mean(axis=0) - theory)[1:] < 4 * error).all()
    two_units = descend(rd.theory.infinite_width(0.4, max_length=0), target, 30).loss
    assert (np.abs(losses.mean(axis=0) - two_units)[1:] > 4 * error).any()


def test_scales_are_traced():
    make = jax.jit(jax.vmap(lambda scale: rd.theory.infinite_width(scale, max_length=1)))
    got = make(jnp.asarray([0.1, 0.5]))
    np.testing.assert_array_equal(got.W[1], rd.theory.infinite_width(0.5, max_length=1).W)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"weight_scale": -0.1}, ValueError, "`weight_scale` must be positive or zero"),
        ({"overlap": 1.5}, ValueError, "`overlap` must be between -1 and 1, but is 1.5"),
        ({"max_length": -1}, ValueError, "`max_length` must be at least 0, but is -1"),
        ({"max_length": 1.0}, TypeError, "`max_length` must be an integer"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        rd.theory.infinite_width(**{"weight_scale": 0.3} | arguments)
