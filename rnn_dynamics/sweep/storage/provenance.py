"""What a run was made with, and how long it compiled and ran."""

import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
from jax import monitoring

from rnn_dynamics.loss.krylov import kernel

PACKAGES = ("rnn_dynamics", "jax", "jaxlib", "equinox", "optax", "numpy", "xarray", "zarr")
SURROUNDINGS = ("versions", "git_commit", "device", "kernel", "matmul_precision", "prng", "flags")
COMPILING = "/jax/core/compile/"
COMPILED = "/jax/core/compile/backend_compile_duration"  # or loaded
LOADED = "/jax/compilation_cache/cache_retrieval_time_sec"


def surroundings() -> dict[str, Any]:
    """Versions, commit, device, precision and random numbers: what the bits of a result may depend
    on beside its config.

    `kernel` is whether gradients are found by a compiled kernel, or by JAX alone.
    """
    device = jax.local_devices()[0]
    return {
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in PACKAGES},
        "git_commit": _git_commit(),
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": jax.local_device_count(),
        },
        "kernel": kernel.is_there(jax.dtypes.canonicalize_dtype(float)),
        "matmul_precision": "highest",
        "prng": str(jax.config.jax_default_prng_impl),  # type: ignore[attr-defined]
        "flags": os.environ.get("XLA_FLAGS", ""),
    }


def occasion() -> dict[str, Any]:
    """Who started a process, where, when and how."""
    return {
        "host": socket.gethostname(),
        "command": sys.argv,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What differs between two surroundings, as "jax 0.9.2 -> 0.12.0"."""
    one, other = _flat(before), _flat(after)
    return [
        f"{name} {one.get(name)} -> {other.get(name)}"
        for name in dict.fromkeys([*one, *other])
        if one.get(name) != other.get(name)
    ]


class Stopwatch:
    """Seconds since it was started, and how many of them JAX was tracing, lowering and compiling. A
    context manager.
    """

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._spans: list[tuple[float, float]] = []
        self._made: list[str] = []

    def __enter__(self) -> "Stopwatch":
        monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **_: Any) -> None:
        if event.startswith(COMPILING):
            now = time.perf_counter()
            self._spans.append((now - duration_secs, now))
        if event in (COMPILED, LOADED):
            self._made.append(event)

    @property
    def programs(self) -> dict[str, int]:
        """How many programs were `compiled`, and how many `loaded` from the persistent cache of the
        command line.
        """
        loaded = self._made.count(LOADED)
        return {"compiled": self._made.count(COMPILED) - loaded, "loaded": loaded}

    @property
    def timings(self) -> dict[str, float]:
        """`seconds` in all, of which `compile_seconds` and `run_seconds`."""
        total, compiled, reached = time.perf_counter() - self._began, 0.0, self._began
        # the trace of a function holds those of the functions that it calls: overlaps count once
        for begin, end in sorted(self._spans):
            compiled += max(0.0, end - max(begin, reached))
            reached = max(reached, end)
        return {
            "seconds": round(total, 3),
            "compile_seconds": round(compiled, 3),
            "run_seconds": round(total - compiled, 3),
        }


def _flat(facts: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, dict):
            found |= _flat(value, "" if name == "versions" else f"{name} ")
        else:
            found[prefix + name] = value
    return found


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the package's checkout, with "+" if it has changes; None outside of a checkout.

    A repository around an installed package, as that of a project with a virtual environment, does
    not track this file.
    """
    # in a hook of another repository git's variables point to that one
    environment = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith("GIT_") or k.startswith("GIT_CONFIG")
    }

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=10,
            start_new_session=True,  # Ctrl-C is for the run, which ends in order
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        if not git("ls-files", "--", Path(__file__).name):
            return None
        return git("describe", "--always", "--dirty=+", "--abbrev=40", "--exclude=*") or None
    except (OSError, subprocess.TimeoutExpired):
        return None
