"""One run by the processes of a job: they meet once, to be numbered, and then work as shards that share nothing but the directory."""

import os

import jax

from rnn_dynamics.sweep.files import StoreError


def join(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> tuple[int, int]:
    """Meet the other processes and part again: the shard (I, N) that is this process's.

    JAX finds out by itself in a SLURM, Open MPI or TPU pod job; elsewhere the arguments say it, or the variables
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID. The connection is closed at once, so a process that is killed later
    takes no other one with it.

    Args:
        coordinator: "host:port" where process 0 listens.
        num_processes: how many there are.
        process_id: which this one is, from 0.

    Raises:
        StoreError: if the processes cannot be found out, or do not meet.
    """
    try:
        jax.distributed.initialize(
            coordinator,
            _variable("JAX_NUM_PROCESSES") if num_processes is None else num_processes,
            _variable("JAX_PROCESS_ID") if process_id is None else process_id,
        )
        shard = jax.process_index() + 1, jax.process_count()
        jax.distributed.shutdown()
    except (ValueError, TypeError, RuntimeError) as error:
        raise StoreError(
            f"Option `--distributed` must be given to all processes of a job that JAX knows, or with `--coordinator`, "
            f"`--num-processes` and `--process-id`, but: {error}"
        ) from error
    return shard


def _variable(name: str) -> int | None:
    return int(os.environ[name]) if name in os.environ else None
