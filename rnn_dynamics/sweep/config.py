"""Reading and writing configs: TOML, command line overrides, and messages that name every problem and its key."""

import difflib
import functools
import json
import tomllib
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any, get_args

import tomli_w
from pydantic import BaseModel, ValidationError

from rnn_dynamics.sweep.axes import show
from rnn_dynamics.sweep.contradictions import contradictions
from rnn_dynamics.sweep.experiment import Experiment
from rnn_dynamics.sweep.optimizers import ARGUMENTS

# the tables of several kinds, the key that tells them apart, and its words
KINDS: dict[Any, tuple[str, tuple[str, ...]]] = {
    "target": ("kind", ("leaky_integrator", "damped_oscillator", "modes")),
    "learning": ("method", ("gradient_descent", "gradient_flow")),
    "schedule": ("kind", ("constant", "linear", "cosine", "exponential", "warmup_cosine")),
}
MOST_HINTS = 20  # nearest keys are looked for: a file of garbage is answered at once


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
    try:
        experiment = Experiment.model_validate(tables)
    except ValidationError as error:
        details = enumerate(error.errors(include_url=False))
        sentences = [_sentence(detail, index < MOST_HINTS) for index, detail in details]
        raise ConfigError(source, sentences) from None
    problems = contradictions(experiment)
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
        return f"Key `{_dotted(parts)}` must lead through tables, but does not."
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


def _sentence(detail: Any, hint: bool) -> str:
    """One pydantic error as a sentence that names the key."""
    raw = detail["loc"]
    location = [
        part
        for depth, part in enumerate(raw)
        # pydantic names the kind of table here, which is no key
        if not (depth and part in KINDS.get(raw[depth - 1], ("", ()))[1])
    ]
    key, kind = _dotted(location), detail["type"]
    if kind == "extra_forbidden":
        return f"Key `{key}` is unknown{_nearest(raw, location) if hint else ''}."
    if kind == "invalid_key":
        return f"Key `{key}` must be a text, but is {show(location[-1])}."
    if kind == "missing":
        return f"Key `{key}` must be given, but is missing."
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        name, kinds = KINDS[location[-1]]
        have = detail["input"].get(name) if isinstance(detail["input"], dict) else None
        wanted = f"{', '.join(map(repr, kinds[:-1]))} or {kinds[-1]!r}"
        if not isinstance(detail["input"], dict):
            return f"Key `{key}` must be a table, but is {show(detail['input'])}."
        state = "missing" if have is None else show(have)
        return f"Key `{key}.{name}` must be {wanted}, but is {state}."
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"Key `{key}` must be a table, but is {show(detail['input'])}."
    if kind == "tuple_type":
        return f"Key `{key}` must be a list, but is {show(detail['input'])}."
    message = detail["msg"].removeprefix("Value error, ")
    return f"Key `{key}` {message}."


def _dotted(location: Iterable[Any]) -> str:
    """A key as text: its parts, in quotes where they would be mistaken, joined by dots."""
    return ".".join(_part(str(part)) for part in location)


def _part(text: str) -> str:
    shown = text if len(text) <= 60 else text[:57] + "…"
    plain = text and text.isprintable() and not set(text) & set('."`')
    return shown if plain else json.dumps(shown)


def _nearest(raw: tuple[Any, ...], location: list[Any]) -> str:
    """The nearest known key to a misspelt or misplaced one."""
    name, section = str(location[-1])[:60], _dotted(location[:-1])
    unnumbered = _dotted(part for part in location[:-1] if not isinstance(part, int))
    sections = (key.rpartition(".") for key in _all_keys(raw[:-1]))
    siblings = {
        key: f"{section}.{key}" if section else key for at, _, key in sections if at == unnumbered
    }
    known = [
        *_all_keys(),
        *map("learning.optimizer_arguments.{}".format, ARGUMENTS),
    ]
    elsewhere = [k for k in known if k.rpartition(".")[2] == name and k != _dotted(location)]
    close = difflib.get_close_matches(name, siblings, n=1, cutoff=0.6)
    any_near = difflib.get_close_matches(name, siblings, n=1, cutoff=0.0)
    nearest = [siblings[key] for key in close] or elsewhere or [siblings[key] for key in any_near]
    return f" (the nearest known key is `{nearest[0]}`)" if nearest else ""


@functools.cache
def _all_keys(kinds: tuple[Any, ...] = ()) -> tuple[str, ...]:
    return tuple(_known_keys(Experiment, "", kinds))


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
