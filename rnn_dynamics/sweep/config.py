"""Reading and writing configs: TOML, command line overrides, and messages that name every problem and its key."""

import difflib
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import tomli_w
from pydantic import BaseModel, ValidationError

from rnn_dynamics.sweep.experiment import Experiment


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
    optimizer = getattr(learning, "optimizer", "sgd")
    if experiment.theory.models and optimizer != "sgd":
        problems.append(
            "Key `theory.models` must be empty unless `learning.optimizer` is 'sgd', the Euler scheme of the "
            f"gradient flow that the theories describe, but it is {optimizer!r}."
        )
    names = list(experiment.dimensions.values())
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.append(f"Key `{name}` must be an axis in one place only, but is in several.")
    return problems


def _sentence(detail: Any) -> str:
    """One pydantic error as a sentence that names the key."""
    tags = {"leaky_integrator", "damped_oscillator", "modes", "gradient_descent", "gradient_flow"}
    location = [
        str(part)
        for depth, part in enumerate(detail["loc"])
        if not (
            depth == 1 and part in tags
        )  # pydantic names the kind of table here, which is no key
    ]
    key, kind = ".".join(location), detail["type"]
    if kind == "extra_forbidden":
        return f"Key `{key}` is unknown{_nearest(detail['loc'], location)}."
    if kind == "missing":
        return f"Key `{key}` must be given, but is missing."
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        name = "kind" if location[0] == "target" else "method"
        have = detail["input"].get(name) if isinstance(detail["input"], dict) else None
        wanted = (
            "'leaky_integrator', 'damped_oscillator' or 'modes'"
            if name == "kind"
            else "'gradient_descent' or 'gradient_flow'"
        )
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
    known = list(_known_keys(Experiment, ""))
    name, section = location[-1], ".".join(location[:-1])
    siblings = {key.rpartition(".")[2]: key for key in known if key.rpartition(".")[0] == section}
    if section in ("target", "learning") and len(raw) > 1:
        siblings = {k: key for k, key in siblings.items() if _belongs(key, str(raw[1]))}
    elsewhere = [key for key in known if key.rpartition(".")[2] == name]
    close = difflib.get_close_matches(name, siblings, n=1, cutoff=0.6)
    any_near = difflib.get_close_matches(name, siblings, n=1, cutoff=0.0)
    nearest = [siblings[key] for key in close] or elsewhere or [siblings[key] for key in any_near]
    return f" (the nearest known key is `{nearest[0]}`)" if nearest else ""


def _belongs(key: str, tag: str) -> bool:
    section, _, name = key.partition(".")
    for cls in _classes(Experiment.model_fields[section]):
        field = cls.model_fields.get("kind") or cls.model_fields.get("method")
        if field is not None and field.default == tag:
            return name in cls.model_fields
    return True


def _known_keys(cls: type[BaseModel], prefix: str) -> Iterable[str]:
    for name, field in cls.model_fields.items():
        key = f"{prefix}.{name}" if prefix else name
        yield key
        for inner in _classes(field):
            yield from _known_keys(inner, key)


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
