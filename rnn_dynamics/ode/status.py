"""How an integration or a learning run ended."""

import enum


class Status(enum.IntEnum):
    """How a run ended. A failure is a value in the result, never an exception.

    - `ok`: every record was reached.
    - `diverged`: the state became non-finite, or no step size was acceptable any more.
    - `unstable`: the dynamics of the network lost stability (set by learning, never by `ode`).
    - `max_steps`: the budget of attempted steps ran out before the last record.
    - `not_run`: nothing was computed yet.
    - `not_proven`: the network is neither proven to be stable nor shown to be unstable (set by
    learning, never by `ode`).
    """

    ok = 0
    diverged = 1
    unstable = 2
    max_steps = 3
    not_run = 4
    not_proven = 5

    @property
    def words(self) -> str:
        """The name as it is printed."""
        return self.name.replace("_", " ")
