"""Cost of one gradient of every loss, per member and step: horizons, discrete time, sampled noise,
and backpropagation through time.

Members have weight scale 0.5, the target decay 0.2. Sampled noise has 32 trials of 500 steps of
0.1; "backpropagation" is the page of JAX that it stands for, all trials through a scan,
differentiated by JAX, under vmap too; its gradient on the same noise is compared. `error` is the
gradient's relative error: the estimate of the exact losses, the noise of the sampled ones.
`temporary_MB` is what XLA allocates beside arguments and results, per member. Compile time is of
the first call and reported apart.

    python benchmarks/losses.py [--units 32 64] [--members 16] [--repeats 5]
"""

from functools import partial
from typing import Any

import harness
import jax
import jax.numpy as jnp
import numpy as np

import rnn_dynamics as rd

TARGET = 0.2
SAMPLED = rd.SampledLoss(50.0, 0.1, 32)
LOSSES: dict[str, Any] = {
    "infinite horizon": rd.PopulationLoss(),
    "horizon 5": rd.PopulationLoss(5.0),
    "horizon 50": rd.PopulationLoss(50.0),
    "horizon 50, time averaged": rd.PopulationLoss(50.0, "time_averaged"),
    "horizon 1000": rd.PopulationLoss(1000.0),
    "500 steps, time averaged": SAMPLED.expected,
    "sampled, 32 trials": SAMPLED,
}


class Backpropagation:
    """All trials through time, differentiated by JAX."""

    def value_and_grad(self, rnn: rd.LinearRNN, target: rd.LinearRNN, key: jax.Array) -> Any:
        noise, dt = SAMPLED.noise(key, rnn.dtype), SAMPLED.time_step

        def outputs(rnn: rd.LinearRNN) -> jax.Array:
            def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
                h = h + dt * (h @ rnn.W.T - h + x[:, None] * rnn.u[None, :])
                return h, h @ rnn.v

            return jax.lax.scan(step, jnp.zeros((len(noise), rnn.num_units)), noise.T)[1]

        wanted = outputs(target)
        return jax.value_and_grad(lambda rnn: jnp.mean((outputs(rnn) - wanted) ** 2) / 2)(rnn)


def norm(rnn: rd.LinearRNN) -> float:
    """Norm of all parameters of a batch."""
    return float(np.sqrt(sum(np.sum(np.asarray(x) ** 2) for x in jax.tree.leaves(rnn))))


def gap(found: rd.LinearRNN, exact: rd.LinearRNN) -> float:
    """Relative difference of two batches of gradients."""
    return norm(jax.tree.map(jnp.subtract, found, exact)) / norm(exact)


def main() -> None:
    """Measure all losses and write `losses_<platform>.jsonl`."""
    options = harness.parser(__doc__ or "")
    options.add_argument("--units", type=int, nargs="+", default=[32, 64])
    options.add_argument("--members", type=int, nargs="+", default=[16])
    chosen = options.parse_args()
    jax.config.update("jax_enable_x64", True)
    target, rows = rd.leaky_integrator(TARGET), []
    for units in chosen.units:
        for count in chosen.members:
            keys = jax.random.split(jax.random.key(0), count)
            rnns = jax.vmap(lambda key, units=units: rd.random_rnn(key, units, 0.5))(keys)
            calls, compiling, memory = {}, {}, {}
            for name, loss in (LOSSES | {"backpropagation, 32 trials": Backpropagation()}).items():
                batched = jax.vmap(lambda rnn, key, own=loss: own.value_and_grad(rnn, target, key))
                call = jax.jit(batched)
                calls[name] = partial(call, rnns, keys)
                compiling[name] = harness.first_call(calls[name])
                analysis = call.lower(rnns, keys).compile().memory_analysis()
                memory[name] = analysis.temp_size_in_bytes / count / 1e6
            found = {name: call()[1] for name, call in calls.items()}
            same = gap(found["sampled, 32 trials"], found["backpropagation, 32 trials"])
            assert same < 1e-10, same
            timed = harness.interleaved(calls, chosen.repeats)
            for name, seconds in timed.items():
                if name in LOSSES:
                    estimate = jax.vmap(LOSSES[name].gradient_and_error, in_axes=(0, None, 0))
                    error = float(jnp.max(jax.jit(estimate)(rnns, target, keys)[2]))
                rows.append(
                    {
                        "loss": name,
                        "units": units,
                        "members": count,
                        **{f"{k}_us": v for k, v in harness.summary(seconds, 1e6 / count).items()},
                        "compile_s": compiling[name],
                        "temporary_MB": memory[name],
                        "error": error,
                    }
                )
    harness.write("losses", rows, chosen.out)


if __name__ == "__main__":
    main()
