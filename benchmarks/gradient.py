"""Cost of one exact gradient, per member and step: N units, S members in one jit-compiled, vmapped
call.

Members have weight scale 0.5 and target decay 0.2. The error beside each time is the largest one of
three members against SciPy's Lyapunov solver, relative. Compile time is of the first call and
reported apart.

    python benchmarks/gradient.py [--units 32 64 128] [--members 1 16 256] [--repeats 9]
"""

from functools import partial

import harness
import jax
import numpy as np
from references import by_scipy

import rnn_dynamics as rd
from rnn_dynamics.sweep.engine.compiling import Program

LOSS = rd.PopulationLoss()
TARGET = 0.2


def members(units: int, count: int, dtype: str) -> rd.LinearRNN:
    """A batch of random networks."""
    keys = jax.random.split(jax.random.key(0), count)
    return jax.vmap(lambda key: rd.random_rnn(key, units, 0.5, dtype=dtype))(keys)


@Program
def gradients(rnns: rd.LinearRNN) -> tuple[jax.Array, rd.LinearRNN]:
    """What is timed."""
    target = rd.leaky_integrator(TARGET)
    return jax.vmap(LOSS.value_and_grad, in_axes=(0, None))(rnns, target)


def largest_error(rnns: rd.LinearRNN, computed: rd.LinearRNN) -> float:
    """Relative error of ∂L/∂W against SciPy, the largest of the first three members."""
    errors = []
    for index in range(min(3, len(rnns.u))):
        exact = by_scipy(jax.tree.map(lambda x, i=index: x[i], rnns), rd.leaky_integrator(TARGET))
        assert exact is not None
        gap = np.asarray(computed.W[index], float) - exact[0]
        errors.append(np.linalg.norm(gap) / np.linalg.norm(exact[0]))
    return float(max(errors))


def main() -> None:
    """Measure all sizes and write `gradient_<platform>.jsonl`."""
    options = harness.parser(__doc__ or "")
    options.add_argument("--units", type=int, nargs="+", default=[32, 64, 128])
    options.add_argument("--members", type=int, nargs="+", default=[1, 16, 256])
    chosen = options.parse_args()
    jax.config.update("jax_enable_x64", True)
    rows = []
    for units in chosen.units:
        for count in chosen.members:
            batches = {dtype: members(units, count, dtype) for dtype in ("float64", "float32")}
            calls = {dtype: partial(gradients, batch) for dtype, batch in batches.items()}
            compiling = {dtype: harness.first_call(call) for dtype, call in calls.items()}
            timed = harness.interleaved(calls, chosen.repeats)
            for dtype, seconds in timed.items():
                rows.append(
                    {
                        "units": units,
                        "members": count,
                        "dtype": dtype,
                        **{f"{k}_us": v for k, v in harness.summary(seconds, 1e6 / count).items()},
                        "compile_s": compiling[dtype],
                        "error": largest_error(batches[dtype], calls[dtype]()[1]),
                    }
                )
    harness.write("gradient", rows, chosen.out)


if __name__ == "__main__":
    main()
