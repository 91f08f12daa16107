"""Reading and writing configs: TOML and command line overrides."""

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tomli_w

from rnn_dynamics.sweep.config.fields import show
from rnn_dynamics.sweep.config.problems import KINDS, ConfigError, dotted, no_text
from rnn_dynamics.sweep.config.schema import Experiment

__all__ = ["KINDS", "ConfigError", "load_experiment", "make_experiment", "to_toml"]


def load_experiment(path: str | Path, overrides: Iterable[str] = ()) -> Experiment:
    """Read a config.

    Args:
        path: a TOML file.
        overrides: "dotted.key=value" strings, values in TOML, for example
            "network.weight_scale=[0.1, 0.3]"; a word needs no quotes.

    Returns:
        The checked experiment.

    Raises:
        ConfigError: if the file cannot be read or is not TOML, or with every unknown key, wrong
            type and value out of range.
        TypeError: if `path` is no path, or `overrides` are no texts.
    """
    if not isinstance(path, str | Path):
        raise TypeError(f"Argument `path` must be a text or a Path, but is {show(path)}.")
    if isinstance(overrides, str) or not isinstance(overrides, Iterable):
        raise TypeError(f"Argument `overrides` must be a list of texts, but is {show(overrides)}.")
    path, texts = Path(path), list(overrides)
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"Argument `overrides` must hold texts, but has {show(text)}.")
    content = _read(path)
    try:
        tables = tomllib.loads(content)
    except RecursionError:
        wrong = "The file must be TOML, but is nested too deeply."
        raise ConfigError(str(path), [wrong]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), [f"The file must be TOML, but is not: {error}."]) from None
    except ValueError:
        wrong = "The file must be TOML, but has a number of too many digits."
        raise ConfigError(str(path), [wrong]) from None
    problems = [problem for text in texts if (problem := _override(tables, text))]
    if problems:
        raise ConfigError("--set", problems)
    return make_experiment(tables, str(path))


def make_experiment(tables: dict[str, Any], source: str = "The config") -> Experiment:
    """Check nested dictionaries as a whole.

    Raises:
        ConfigError: with every problem.
        TypeError: if `tables` is no dictionary.
    """
    if not isinstance(tables, dict):
        raise TypeError(f"Argument `tables` must be a dictionary, but is {show(tables)}.")
    problems = [no_text(key) for key in tables if not isinstance(key, str)]
    try:
        experiment = Experiment(**{k: v for k, v in tables.items() if isinstance(k, str)})
    except ConfigError as error:
        raise ConfigError(source, problems + error.problems) from None
    if problems:
        raise ConfigError(source, problems)
    return experiment


def to_toml(experiment: Experiment) -> str:
    """The resolved config as TOML."""
    return tomli_w.dumps(experiment.tables())


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        problem = f"The file cannot be read: {error.strerror}."
    except UnicodeDecodeError:
        problem = "The file must be UTF-8 text, but is not."
    except ValueError:  # the path has a NUL in it
        problem = "The file cannot be read: this is no path."
    raise ConfigError(str(path), [problem])


def _override(tables: dict[str, Any], text: str) -> str | None:
    """Set one key; returns what is wrong, if anything."""
    key, equals, value = text.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        return f"Argument `--set` must have the form KEY=VALUE, but is {show(text)}."
    parsed = _parsed(value)
    table: Any = tables
    for part in parts[:-1]:
        if isinstance(table, list):
            table = dict(zip(map(str, range(len(table))), table, strict=True)).get(part)
        elif isinstance(table, dict):
            table = table.setdefault(part, {})
        else:
            table = None
    if not isinstance(table, dict):
        return f"Key `{dotted(parts)}` must lead through tables, but does not."
    table[parts[-1]] = parsed
    return None


def _parsed(value: str) -> Any:
    """A value in TOML, or the word that it is."""
    try:
        read = tomllib.loads(f"value = {value}")
    except (ValueError, RecursionError):
        return value.strip()
    # a line break may end the value and begin other keys
    return read["value"] if len(read) == 1 else value.strip()
