"""A theory's learning curve."""

from typing import Any

import equinox as eqx
import jax
import numpy as np

from rnn_dynamics.model.arguments import is_traced
from rnn_dynamics.ode import Status


class TheoryCurve(eqx.Module):
    """What a theory predicts at R records; drawn and compared like a `Trajectory`.

    Attributes:
        train_time: learning time τ of each record, (R,).
        loss: the loss, (R,).
        eigenvalues: the theory's eigenvalues of W, (R, K) complex.
        coordinates: the theory's own coordinates by name, each (R,). All theories have `input_norm`
            = |u|, `output_norm` = |v|, `overlap` = u·v and `weight_change` = ‖W - W(0)‖_F among
            them. Coordinates are attributes of the curve too.
        status: a `Status`, () int32; records after a failure are NaN.
        events: learning times of events by name, each (), NaN if they are not passed; attributes of
            the curve too.
    """

    train_time: jax.Array
    loss: jax.Array
    eigenvalues: jax.Array
    coordinates: dict[str, jax.Array]
    status: jax.Array
    events: dict[str, jax.Array] = eqx.field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        fields = object.__getattribute__(self, "__dict__")
        for table in ("coordinates", "events"):
            if name in fields.get(table, {}):
                return fields[table][name]
        raise AttributeError(f"TheoryCurve has no attribute {name!r}.")

    def __str__(self) -> str:
        if is_traced(self.train_time) or self.train_time.ndim != 1:
            return f"TheoryCurve of shape {self.train_time.shape}"
        times, made = np.asarray(self.train_time), int(np.count_nonzero(np.isfinite(self.loss)))
        name, last = Status(int(self.status)).words, max(made - 1, 0)
        ending = f"{len(times)} records to learning time {times[-1]:g}: {name}"
        if self.status != Status.ok and made < len(times):
            ending = (
                f"{name} after record {made} of {len(times)} (before learning time {times[made]:g})"
            )
        first, last_ones = np.asarray(self.eigenvalues)[[0, last]]
        lines = [
            f"TheoryCurve, {ending}",
            f"  loss         {float(self.loss[0]):.6g} -> {float(self.loss[last]):.6g}",
            f"  eigenvalues  {np.array2string(first, precision=4)} -> "
            f"{np.array2string(last_ones, precision=4)}",
        ]
        if self.events:
            events = (f"{name} {float(time):.6g}" for name, time in self.events.items())
            lines.append(f"  events       {', '.join(events)}")
        return "\n".join(lines)
