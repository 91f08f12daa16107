"""Numbers of a config that may be sweep axes: a number, a list, or a table { start, stop, num, spacing }."""

import difflib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic_core.core_schema import no_info_plain_validator_function

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
            raise ValueError(f"must be one number, not a sweep axis, but is {_show(value)}")
        if not value:
            raise ValueError("must hold at least one value, but is an empty axis")
        values = tuple(self._check_one(item) for item in value)
        repeated = [item for index, item in enumerate(values) if item in values[:index]]
        if repeated:
            raise ValueError(f"must not repeat a value of its axis, but has {repeated[0]} twice")
        return values

    def _check_one(self, value: Any) -> float | int:
        kinds: tuple[type, ...] = (int,) if self.integer else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            word = "an integer" if self.integer else "a number"
            raise ValueError(f"must be {word}, but is {_show(value)}")
        try:
            result: Any = value if self.integer else float(value)  # type: ignore[arg-type]
        except OverflowError:
            result = math.inf
        if not self.integer and not (
            math.isfinite(result) or (self.infinite and result == math.inf)
        ):
            raise ValueError(f"must be finite, but is {_show(value)}")
        if self.positive and not result > 0:
            raise ValueError(f"must be positive, but is {_show(value)}")
        if self.minimum == 0 and result < 0:
            raise ValueError(f"must be positive or zero, but is {_show(value)}")
        if result < self.minimum:
            raise ValueError(f"must be at least {self.minimum}, but is {_show(value)}")
        if result > self.maximum:
            raise ValueError(f"must be at most {self.maximum}, but is {_show(value)}")
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
        near = difflib.get_close_matches(str(value), self.names, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        listed = ", ".join(repr(name) for name in self.names)
        raise ValueError(f"must be one of {listed}, but is {_show(value)}{hint}")


class Text:
    """A key that is a text."""

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> Any:
        return no_info_plain_validator_function(self.check)

    def check(self, value: Any) -> str:
        """The text, or a ValueError."""
        if isinstance(value, str) and value:
            return value
        raise ValueError(f"must be a text that is not empty, but is {_show(value)}")


def _expand(table: dict[str, Any], integer: bool) -> list[float]:
    unknown = sorted(set(table) - {"start", "stop", "num", "spacing"})
    missing = sorted({"start", "stop", "num"} - set(table))
    if unknown or missing:
        what = f"unknown {unknown}" if unknown else f"no {missing}"
        raise ValueError(
            f"must be a number, a list, or a table with start, stop, num and spacing, but has {what}"
        )
    start, stop, num = table["start"], table["stop"], table["num"]
    spacing = table.get("spacing", "linear")
    for name, value in (("start", start), ("stop", stop)):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"must have a number as {name}, but it is {_show(value)}")
        if not math.isfinite(value):
            raise ValueError(f"must have a finite {name}, but it is {_show(value)}")
    if isinstance(num, bool) or not isinstance(num, int) or not 1 <= num <= 1_000_000:
        raise ValueError(f"must have an integer from 1 to 1000000 as num, but it is {_show(num)}")
    if spacing not in ("linear", "log"):
        raise ValueError(f"must have spacing 'linear' or 'log', but it is {_show(spacing)}")
    if spacing == "log":
        if not (start > 0 and stop > 0):
            raise ValueError("must have a positive start and stop for log spacing")
        points = np.geomspace(start, stop, num)
    else:
        points = np.linspace(start, stop, num)
    # linspace and geomspace leave noise in the last digits, which would end up in labels
    values = [float(f"{point:.12g}") for point in points]
    if not integer:
        return values
    if any(value != round(value) for value in values) and spacing == "linear":
        raise ValueError("must have integer points, but start, stop and num give fractions")
    return [round(value) for value in values]


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
