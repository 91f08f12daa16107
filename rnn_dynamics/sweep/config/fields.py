"""Parts of config tables: the base model, and numbers that may be sweep axes: a number, a list, or
a table { start, stop, num, spacing }.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Discriminator
from pydantic_core.core_schema import no_info_plain_validator_function

from rnn_dynamics.sweep.config.hints import nearest

# of numbers that are not integers: their products and quotients stay finite
SMALLEST, LARGEST = 1e-60, 1e60

Values = float | int | tuple[float, ...] | tuple[int, ...]


@dataclass(frozen=True)
class Number:
    """The range of a numeric key; with `axis` it may hold several values, as a tuple."""

    integer: bool = False
    positive: bool = False
    minimum: float = -math.inf
    maximum: float = math.inf
    axis: bool = True
    infinite: bool = False

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> Any:
        return no_info_plain_validator_function(self.check)

    def check(self, value: Any) -> Values:
        """The value or values, or a ValueError that says what they must be."""
        if isinstance(value, dict):
            value = _expand(value, self.integer)
        if not isinstance(value, list | tuple):
            return self._check_one(value)
        if not self.axis:
            raise ValueError(f"must be one number, not a sweep axis, but is {show(value)}")
        if not value:
            raise ValueError("must hold at least one value, but is an empty axis")
        values = tuple(self._check_one(item) for item in value)
        if (twice := first_repeated(values)) is not None:
            raise ValueError(f"must not repeat a value of its axis, but has {twice} twice")
        return values

    def _check_one(self, value: Any) -> float | int:
        kinds: tuple[type, ...] = (int,) if self.integer else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            word = "an integer" if self.integer else "a number"
            raise ValueError(f"must be {word}, but is {show(value)}")
        result: Any = value if self.integer else _as_float(value)
        if not self.integer and not (
            math.isfinite(result) or (self.infinite and value == math.inf)
        ):
            word = "positive, or inf" if self.infinite else "finite"
            raise ValueError(f"must be {word}, but is {show(value)}")
        if self.positive and not result > 0:
            raise ValueError(f"must be positive, but is {show(value)}")
        if self.minimum == 0 and result < 0:
            raise ValueError(f"must be positive or zero, but is {show(value)}")
        if result < self.minimum:
            raise ValueError(f"must be at least {self.minimum}, but is {show(value)}")
        if result > self.maximum:
            raise ValueError(f"must be at most {self.maximum}, but is {show(value)}")
        sensible = result == 0 or math.isinf(result) or SMALLEST <= abs(result) <= LARGEST
        if not (self.integer or sensible):
            raise ValueError(
                f"must have a size from {SMALLEST:g} to {LARGEST:g}, but is {show(value)}"
            )
        return result


class Choice:
    """A key that is one of some words."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> Any:
        return no_info_plain_validator_function(self.check)

    def check(self, value: Any) -> str:
        """The word, or a ValueError that names the nearest known one."""
        if isinstance(value, str) and value in self.names:
            return value
        near = nearest(value, self.names) if isinstance(value, str) else None
        hint = f" (did you mean {near!r}?)" if near else ""
        listed = ", ".join(repr(name) for name in self.names)
        raise ValueError(f"must be one of {listed}, but is {show(value)}{hint}")


class Text:
    """A key that is a text, of printable characters."""

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> Any:
        return no_info_plain_validator_function(self.check)

    def check(self, value: Any) -> str:
        """The text, or a ValueError."""
        if not isinstance(value, str) or not value:
            raise ValueError(f"must be a text that is not empty, but is {show(value)}")
        # no path has a NUL in it, and no file a lone surrogate
        if not value.isprintable():
            raise ValueError(f"must be a text that can be printed, but is {show(value)}")
        return value


def _expand(table: dict[str, Any], integer: bool) -> list[float]:
    unknown = [key for key in table if key not in ("start", "stop", "num", "spacing")]
    missing = [key for key in ("start", "stop", "num") if key not in table]
    if unknown or missing:
        what = f"unknown {show(unknown)}" if unknown else f"no {missing}"
        raise ValueError(
            "must be a number, a list, or a table with start, stop, num and spacing, but has "
            f"{what}"
        )
    start, stop, num = table["start"], table["stop"], table["num"]
    spacing = table.get("spacing", "linear")
    for name, value in (("start", start), ("stop", stop)):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"must have a number as {name}, but it is {show(value)}")
        if not math.isfinite(_as_float(value)):
            raise ValueError(f"must have a finite {name}, but it is {show(value)}")
    if isinstance(num, bool) or not isinstance(num, int) or not 1 <= num <= 1_000_000:
        raise ValueError(f"must have an integer from 1 to 1000000 as num, but it is {show(num)}")
    if spacing not in ("linear", "log"):
        raise ValueError(f"must have spacing 'linear' or 'log', but it is {show(spacing)}")
    if spacing == "log" and not (start > 0 and stop > 0):
        raise ValueError("must have a positive start and stop for log spacing")
    with np.errstate(all="ignore"):
        points = (np.geomspace if spacing == "log" else np.linspace)(start, stop, num)
    if not np.all(np.isfinite(points)):
        raise ValueError("must have finite points, but start, stop and num give others")
    # linspace and geomspace leave noise in the last digits, which would end up in labels
    values = [float(f"{point:.12g}") for point in points]
    if not integer:
        return values
    if any(value != round(value) for value in values) and spacing == "linear":
        raise ValueError("must have integer points, but start, stop and num give fractions")
    return [round(value) for value in values]


def first_repeated(values: tuple[Any, ...]) -> Any:
    """The first value that was there before, or None."""
    seen = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def number_text(number: Any) -> str:
    """A number as a short text that reads back as the same one: no two numbers share it."""
    number = number.item() if isinstance(number, np.generic) else number
    if isinstance(number, int):
        return str(number)
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


def show(value: Any) -> str:
    """A value as text of at most 60 characters, whatever it is."""
    try:
        text = " ".join(repr(value).split())  # arrays have several lines
    except RecursionError:
        return "a value nested too deeply to be shown"
    except ValueError:  # Python turns no integer of thousands of digits into text
        return "a number of too many digits to be shown"
    return text if len(text) <= 60 else text[:57] + "..."


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value > 0 or -1)


class ConfigModel(BaseModel):
    """A table of the config: unknown keys are refused, values cannot be changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


def tagged_by(name: str, default: str | None = None) -> Discriminator:
    """Tells the kind of a table, of several that there may be, by the word at a key."""

    def tag(table: Any) -> Any:
        found = (
            table.get(name, default) if isinstance(table, dict) else getattr(table, name, default)
        )
        return found if isinstance(found, str) else None

    return Discriminator(tag)
