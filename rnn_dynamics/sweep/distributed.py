"""One run by the processes of a job: they meet once, to be numbered, and then work as shards that
share nothing but the directory.
"""

import os
import socket
import threading

import jax

from rnn_dynamics.sweep.storage.files import StoreError


def join(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> tuple[int, int]:
    """Meet the other processes and part again: the shard (I, N) that is this process's.

    JAX finds out by itself in a SLURM, Open MPI or TPU pod job; elsewhere the arguments say it, or
    the variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID. The connection is
    closed at once, so a process that is killed later takes no other one with it.

    Args:
        coordinator: "host:port" where process 0 listens, and nowhere else (unless
            JAX_COORDINATOR_BIND_ADDRESS says where).
        num_processes: how many there are.
        process_id: which this one is, from 0.

    Raises:
        StoreError: if the processes cannot be found out, or do not meet.
    """
    shards: list[tuple[int, int]] = []
    failures: list[Exception] = []

    def meet() -> None:
        try:
            count = _variable("JAX_NUM_PROCESSES") if num_processes is None else num_processes
            number = _variable("JAX_PROCESS_ID") if process_id is None else process_id
            listen_at = os.environ.get("JAX_COORDINATOR_BIND_ADDRESS", coordinator)
            if listen_at is not None:
                _check(listen_at, number == 0)
            jax.distributed.initialize(
                coordinator, count, number, coordinator_bind_address=listen_at
            )
            shards.append((jax.process_index() + 1, jax.process_count()))
            jax.distributed.shutdown()
        except Exception as error:
            failures.append(error)

    # JAX waits for minutes outside of Python: the main thread stays free for signals
    waiting = threading.Thread(target=meet, daemon=True)
    waiting.start()
    while waiting.is_alive():
        waiting.join(0.1)
    if failures:
        where = f" Process 0 listens on `{coordinator}` alone." if coordinator else ""
        raise StoreError(
            "Option `--distributed` must be given to all processes of a job that JAX knows, or "
            "with `--coordinator`, "
            f"`--num-processes` and `--process-id`, but: {failures[0]}.{where}"
        ) from failures[0]
    return shards[0]


def _check(where: str, listens: bool) -> None:
    """Refuse an address that is none, or at which this process cannot listen: JAX would crash."""
    host, _, port = where.rpartition(":")
    if not (host and port.isdecimal() and int(port) < 2**16):
        raise ValueError(f"the coordinator must be HOST:PORT, but is {where!r}")
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    family, kind, protocol, _, address = found[0]
    if listens:
        with socket.socket(family, kind, protocol) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(address)


def _variable(name: str) -> int | None:
    return int(os.environ[name]) if name in os.environ else None
