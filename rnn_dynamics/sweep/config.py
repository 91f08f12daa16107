"""Reading and writing configs: TOML, command line overrides, and messages that name every problem and its key."""

import difflib
import tomllib
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import tomli_w
from pydantic import BaseModel, ValidationError

from rnn_dynamics.sweep.experiment import Experiment, GradientDescentTable
from rnn_dynamics.sweep.optimizers import ARGUMENTS, UNSCHEDULED
from rnn_dynamics.sweep.sampling import loss_contradictions
from rnn_dynamics.sweep.ticks import fewest_records

# the tables of several kinds, the key that tells them apart, and its words
KINDS: dict[Any, tuple[str, tuple[str, ...]]] = {
    "target": ("kind", ("leaky_integrator", "damped_oscillator", "modes")),
    "learning": ("method", ("gradient_descent", "gradient_flow")),
    "schedule": ("kind", ("constant", "linear", "cosine", "exponential", "warmup_cosine")),
}


class ConfigError(ValueError):
    """A config has problems; the message lists all of them, one per line, each with its key.

    Attributes:
        problems: the lines.
    """

    def __init__(self, source: str, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n  ".join([f"{source} has {len(problems)} problem(s):", *problems]))


def load_experiment(path: str | Path, overrides: Iterable[str] = ()) -> Experiment:
    """Read a config.

    Args:
        path: a TOML file.
        overrides: "dotted.key=value" strings, values in TOML, for example "network.weight_scale=[0.1, 0.3]"; a word needs no quotes.

    Returns:
        The checked experiment.

    Raises:
        ConfigError: if the file cannot be read or is not TOML, or with every unknown key, wrong type and value out of range.
    """
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise ConfigError(str(path), [f"The file cannot be read: {error.strerror}."]) from None
    except UnicodeDecodeError:
        raise ConfigError(str(path), ["The file must be UTF-8 text, but is not."]) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(str(path), [f"The file must be TOML, but is not: {error}."]) from None
    problems = [problem for text in overrides if (problem := _override(tables, text))]
    if problems:
        raise ConfigError("--set", problems)
    return make_experiment(tables, str(path))


def make_experiment(tables: dict[str, Any], source: str = "The config") -> Experiment:
    """Check nested dictionaries as a whole.

    Raises:
        ConfigError: with every problem.
    """
    try:
        experiment = Experiment.model_validate(tables)
    except ValidationError as error:
        raise ConfigError(source, [_sentence(detail) for detail in error.errors()]) from None
    problems = _contradictions(experiment)
    if problems:
        raise ConfigError(source, problems)
    return experiment


def to_toml(experiment: Experiment) -> str:
    """The resolved config as TOML."""
    return tomli_w.dumps(experiment.tables())


def _override(tables: dict[str, Any], text: str) -> str | None:
    """Set one key; returns what is wrong, if anything."""
    key, equals, value = text.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        return f"Argument `--set` must have the form KEY=VALUE, but is {text!r}."
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        parsed = value.strip()
    table: Any = tables
    for part in parts[:-1]:
        if isinstance(table, list) and part.isdigit() and int(part) < len(table):
            table = table[int(part)]
        elif isinstance(table, dict):
            table = table.setdefault(part, {})
        else:
            table = None
    if not isinstance(table, dict):
        return f"Key `{'.'.join(parts)}` must lead through tables, but does not."
    table[parts[-1]] = parsed
    return None


def _contradictions(experiment: Experiment) -> list[str]:
    """Problems between keys that are each right by themselves."""
    problems = []
    network, learning, record = experiment.network, experiment.learning, experiment.record
    sizes = network.num_units if isinstance(network.num_units, tuple) else (network.num_units,)
    if network.overlap is not None and min(sizes) < 2:
        problems.append("Key `network.overlap` must be absent for 1 unit, but is given.")
    if learning.method == "gradient_descent" and record.every is not None:
        steps = (
            learning.num_steps if isinstance(learning.num_steps, tuple) else (learning.num_steps,)
        )
        if record.every != int(record.every):
            problems.append(
                f"Key `record.every` must be a whole number of steps, but is {record.every}."
            )
        elif record.every > min(steps):
            problems.append(
                f"Key `record.every` must be at most the number of steps, {min(steps)}, "
                f"but is {record.every:g}."
            )
    if learning.method == "gradient_flow" and record.every is not None:
        ends = (
            learning.train_time
            if isinstance(learning.train_time, tuple)
            else (learning.train_time,)
        )
        if record.every > min(ends):
            problems.append(
                f"Key `record.every` must be at most the learning time, {min(ends):g}, "
                f"but is {record.every:g}."
            )
    problems += loss_contradictions(experiment)
    if isinstance(learning, GradientDescentTable):
        problems += _optimizer_contradictions(learning)
    if isinstance(record.weights, tuple) and record.weights and not problems:
        fewest = fewest_records(experiment)
        outside = [index for index in record.weights if not -fewest <= index < fewest]
        if outside:
            problems.append(
                f"Key `record.weights` must hold records from {-fewest} to {fewest - 1}, as members have {fewest} "
                f"records or more, but has {outside[0]}."
            )
    if network.warm_start_record is not None and network.warm_start is None:
        problems.append(
            "Key `network.warm_start_record` must be absent without `network.warm_start`, but is given."
        )
    names = list(experiment.dimensions.values())
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.append(f"Key `{name}` must be an axis in one place only, but is in several.")
    return problems


def _optimizer_contradictions(learning: GradientDescentTable) -> list[str]:
    problems = []
    schedule, optimizer = learning.schedule, learning.optimizer
    if schedule.kind != "constant" and optimizer in UNSCHEDULED:
        problems.append(
            f"Key `learning.schedule.kind` must be 'constant' for {optimizer!r}, which chooses its own step sizes, "
            f"but is {schedule.kind!r}."
        )
    if schedule.kind == "warmup_cosine":
        length = learning.num_steps if schedule.steps is None else schedule.steps
        warmup, steps = int(np.max(schedule.warmup_steps)), int(np.min(length))
        if warmup >= steps:
            problems.append(
                f"Key `learning.schedule.warmup_steps` must be less than the steps of the schedule, {steps}, "
                f"but is {warmup}."
            )
    if learning.weight_decay is not None and "weight_decay" in learning.optimizer_arguments:
        problems.append(
            "Key `learning.weight_decay` must be absent beside `learning.optimizer_arguments.weight_decay`, "
            "but is given."
        )
    return problems


def _sentence(detail: Any) -> str:
    """One pydantic error as a sentence that names the key."""
    raw = detail["loc"]
    location = [
        str(part)
        for depth, part in enumerate(raw)
        # pydantic names the kind of table here, which is no key
        if not (depth and part in KINDS.get(raw[depth - 1], ("", ()))[1])
    ]
    key, kind = ".".join(location), detail["type"]
    if kind == "extra_forbidden":
        return f"Key `{key}` is unknown{_nearest(detail['loc'], location)}."
    if kind == "missing":
        return f"Key `{key}` must be given, but is missing."
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        name, kinds = KINDS[location[-1]]
        have = detail["input"].get(name) if isinstance(detail["input"], dict) else None
        wanted = f"{', '.join(map(repr, kinds[:-1]))} or {kinds[-1]!r}"
        if not isinstance(detail["input"], dict):
            return f"Key `{key}` must be a table, but is {_short(detail['input'])}."
        state = "missing" if have is None else _short(have)
        return f"Key `{key}.{name}` must be {wanted}, but is {state}."
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"Key `{key}` must be a table, but is {_short(detail['input'])}."
    if kind == "tuple_type":
        return f"Key `{key}` must be a list, but is {_short(detail['input'])}."
    if kind == "too_short":
        return f"Key `{key}` must hold at least one entry, but is empty."
    message = detail["msg"].removeprefix("Value error, ")
    return f"Key `{key}` {message}."


def _nearest(raw: tuple[Any, ...], location: list[str]) -> str:
    """The nearest known key to a misspelt or misplaced one."""
    name, section = location[-1], ".".join(location[:-1])
    here = _known_keys(Experiment, "", raw[:-1])
    siblings = {key.rpartition(".")[2]: key for key in here if key.rpartition(".")[0] == section}
    known = [
        *_known_keys(Experiment, ""),
        *map("learning.optimizer_arguments.{}".format, ARGUMENTS),
    ]
    elsewhere = [k for k in known if k.rpartition(".")[2] == name and k != ".".join(location)]
    close = difflib.get_close_matches(name, siblings, n=1, cutoff=0.6)
    any_near = difflib.get_close_matches(name, siblings, n=1, cutoff=0.0)
    nearest = [siblings[key] for key in close] or elsewhere or [siblings[key] for key in any_near]
    return f" (the nearest known key is `{nearest[0]}`)" if nearest else ""


def _known_keys(cls: type[BaseModel], prefix: str, kinds: Container[Any] = ()) -> Iterable[str]:
    """The dotted keys of a table, of a table of several kinds those of the kinds that are named, if any is."""
    for name, field in cls.model_fields.items():
        key = f"{prefix}.{name}" if prefix else name
        yield key
        tables = _classes(field)
        for inner in [table for table in tables if _kind(table) in kinds] or tables:
            yield from _known_keys(inner, key, kinds)


def _kind(cls: type[BaseModel]) -> Any:
    field = cls.model_fields.get("kind") or cls.model_fields.get("method")
    return None if field is None else field.default


def _classes(field: Any) -> list[type[BaseModel]]:
    """The tables that a field can hold."""

    def within(annotation: Any) -> list[type[BaseModel]]:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return [annotation]
        return [found for part in get_args(annotation) for found in within(part)]

    return within(field.annotation)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
