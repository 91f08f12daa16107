"""How the programs of a sweep are compiled."""

import functools
from collections.abc import Callable
from functools import cache, cached_property
from typing import Any

import jax
import jax.numpy as jnp

# XLA would compile and time dozens of kernels of Triton for every product of a program, most of its
# time, and these products are few beside a record.
FOR_GPUS: dict[str, Any] = {"xla_gpu_enable_triton_gemm": False}


class Program:
    """A function that is compiled as by `jax.jit`, where it is first called and for what is there:
    not within another.
    """

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        self._function, self._options = function, options
        functools.update_wrapper(self, function)

    @cached_property
    def _compiled(self) -> Any:
        return jax.jit(self._function, compiler_options=known_options(), **self._options)

    def __call__(self, *arguments: Any) -> Any:
        return self._compiled(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compiled, name)  # as lower and clear_cache


@cache
def known_options() -> dict[str, Any]:
    """Of `FOR_GPUS`, if this is one, and if its compiler knows them."""
    if jax.default_backend() != "gpu":
        return {}
    try:
        jax.jit(lambda x: x + 1, compiler_options=FOR_GPUS)(jnp.zeros(()))
    except jax.errors.JaxRuntimeError:
        return {}
    return FOR_GPUS
