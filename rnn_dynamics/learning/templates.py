"""Functions from outside, taken apart into structure and numbers.

JAX keeps a compiled program for each function object, and optax makes new ones at every call: two
`optax.adam(1e-3)` would be compiled twice. Here functions are equal if they have the same code and
equal contents of their closures, whatever the real numbers in these are: the numbers are arguments
of the program.
"""

import functools
import types
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

Numbers = tuple[Any, ...]


class Template:
    """A value without the real numbers in it; equal to those of equal structure.

    Attributes:
        key: what it is compared by.
    """

    def __init__(self, value: Any, key: Hashable, traced: bool) -> None:
        self._value, self.key, self._traced = value, key, traced

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Template) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __call__(self, numbers: Numbers = ()) -> Any:
        """The value with other numbers."""
        return _filled(self._value, iter(numbers)) if self._traced else self._value


class Filled(eqx.Module):
    """A function with its numbers as leaves of a pytree."""

    numbers: Numbers
    template: Template = eqx.field(static=True)

    @classmethod
    def of(cls, function: Any, traced: bool) -> "Filled":
        """A function with the real numbers in it as leaves, or as a whole."""
        template, numbers = take_apart(function, traced)
        return cls(tuple(jnp.asarray(x, float) for x in numbers), template)

    def __call__(self, *arguments: Any) -> Any:
        return self.template(self.numbers)(*arguments)


def take_apart(value: Any, traced: bool = True) -> tuple[Template, Numbers]:
    """A template, and the real numbers to fill it with.

    Args:
        value: a function, or a tuple of functions as an optax transformation is one.
        traced: whether real numbers are left out; else they are part of the structure.
    """
    numbers: list[Any] = []
    key = _key(value, numbers if traced else None, ())
    return Template(value, key, traced), tuple(numbers)


def _parts(value: Any) -> tuple[Hashable, list[Any], Callable[[list[Any]], Any]] | None:
    """What a value is made of: its kind, its parts, and what makes it of other parts; None of one
    that is whole.
    """
    if isinstance(value, types.FunctionType):
        defaults, named = value.__defaults__ or (), value.__kwdefaults__ or {}
        cells = [cell.cell_contents for cell in value.__closure__ or ()]

        def function(parts: list[Any]) -> Any:
            own = iter(parts)
            made = types.FunctionType(
                *(value.__code__, value.__globals__, value.__name__),
                tuple(next(own) for _ in defaults) or None,
                tuple(types.CellType(part) for part in parts[len(parts) - len(cells) :]) or None,
            )
            made.__kwdefaults__ = {name: next(own) for name in named} or None
            made.__dict__.update(value.__dict__)
            return made

        kind = ("function", value.__code__, id(value.__globals__), len(defaults), *named)
        return kind, [*defaults, *named.values(), *cells], function
    if isinstance(value, functools.partial):
        size, names = len(value.args), tuple(value.keywords)

        def partial(parts: list[Any]) -> Any:
            function, *arguments = parts
            keywords = dict(zip(names, arguments[size:], strict=True))
            return functools.partial(function, *arguments[:size], **keywords)

        kind = ("partial", size, *names)
        return kind, [value.func, *value.args, *value.keywords.values()], partial
    if isinstance(value, tuple | list):
        make: Any = type(value)
        named_tuple = hasattr(value, "_fields")
        return (
            (make, len(value)),
            list(value),
            lambda parts: make(*parts) if named_tuple else make(parts),
        )
    if type(value) is dict:
        return (
            ("dict", *value),
            list(value.values()),
            lambda parts: dict(zip(value, parts, strict=True)),
        )
    return None


def _is_number(value: Any) -> bool:
    if isinstance(value, jax.Array):
        return value.shape == () and jnp.issubdtype(value.dtype, jnp.floating)
    return type(value) is float


def _key(value: Any, numbers: list[Any] | None, above: tuple[int, ...]) -> Hashable:
    """What two values of equal structure share; the numbers of this one are appended."""
    if numbers is not None and _is_number(value):
        numbers.append(value)
        return "number"
    if id(value) not in above and (found := _parts(value)) is not None:
        kind, parts, _ = found
        return kind, *(_key(part, numbers, (*above, id(value))) for part in parts)
    if isinstance(value, jax.Array | np.ndarray) and not isinstance(value, jax.core.Tracer):
        is_key = jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)
        plain = np.asarray(jax.random.key_data(value) if is_key else value)
        return type(value), value.shape, str(value.dtype), plain.tobytes()
    try:
        hash(value)
    except TypeError:
        return type(value), id(value)
    return type(value), value


def _filled(value: Any, numbers: Iterator[Any], above: tuple[int, ...] = ()) -> Any:
    if _is_number(value):
        return next(numbers)
    if id(value) in above or (found := _parts(value)) is None:
        return value
    _, parts, make = found
    return make([_filled(part, numbers, (*above, id(value))) for part in parts])
