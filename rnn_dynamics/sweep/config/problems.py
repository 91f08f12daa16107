"""What is wrong with a config, in sentences that name the key. JAX is not needed."""

import functools
import json
from collections.abc import Container, Iterable
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from rnn_dynamics.sweep.config.fields import show
from rnn_dynamics.sweep.config.hints import meant, nearest
from rnn_dynamics.sweep.config.optimizers import ARGUMENTS

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


def sentences(root: type[BaseModel], error: ValidationError) -> list[str]:
    """The problems that pydantic found in a config of the class `root`."""
    details = enumerate(error.errors(include_url=False))
    return [_sentence(root, detail, index < MOST_HINTS) for index, detail in details]


def no_text(key: Any) -> str:
    """The problem of a key that is no text."""
    return f"Key `{dotted([key])}` must be a text, but is {show(key)}."


def dotted(location: Iterable[Any]) -> str:
    """A key as text: its parts, in quotes where they would be mistaken, joined by dots."""
    return ".".join(_part(str(part)) for part in location)


def _part(text: str) -> str:
    shown = text if len(text) <= 60 else text[:57] + "…"
    plain = text and text.isprintable() and not set(text) & set('."`')
    return shown if plain else json.dumps(shown)


def _sentence(root: type[BaseModel], detail: Any, hint: bool) -> str:
    """One pydantic error as a sentence that names the key."""
    raw = detail["loc"]
    location = [
        part
        for depth, part in enumerate(raw)
        # pydantic names the kind of table here, which is no key
        if not (depth and part in KINDS.get(raw[depth - 1], ("", ()))[1])
    ]
    key, kind = dotted(location), detail["type"]
    if kind == "extra_forbidden":
        return f"Key `{key}` is unknown{_hint(root, raw, location) if hint else ''}."
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


def _hint(root: type[BaseModel], raw: tuple[Any, ...], location: list[Any]) -> str:
    """Which kind of table an unknown key belongs to, or the nearest known key."""
    name, section = str(location[-1])[:60], dotted(location[:-1])
    unnumbered = dotted(part for part in location[:-1] if not isinstance(part, int))
    siblings, synonym = _keys_in(root, unnumbered, raw[:-1]), meant(name)
    for word in dict.fromkeys((name, synonym)):
        if word in siblings:
            return f" (the nearest known key is `{dotted([*location[:-1], word])}`)"
        if kinds := _kinds_with(root, word, unnumbered, raw):
            what = "it" if word == name else f"`{word}`"
            tag = dotted([*location[:-1], KINDS[raw[-3]][0]])
            return f" ({what} belongs to {_listed(kinds)}, but `{tag}` is {raw[-2]!r})"
    here = f"{section}." if section else ""
    keys = (
        _elsewhere(root, name, unnumbered),
        (near := nearest(name, siblings)) and here + near,
        _elsewhere(root, synonym, unnumbered),
        (near := nearest(name, siblings, cutoff=0.0)) and here + near,
    )
    return next((f" (the nearest known key is `{key}`)" for key in keys if key), "")


def _listed(words: tuple[str, ...]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _kinds_with(
    root: type[BaseModel], name: str, section: str, raw: tuple[Any, ...]
) -> tuple[str, ...]:
    """The other kinds of a table, of several that it may be, that have a key."""
    kinds = KINDS.get(raw[-3], ("", ()))[1] if len(raw) > 2 else ()
    if len(raw) < 3 or raw[-2] not in kinds:
        return ()
    return tuple(k for k in kinds if name in _keys_in(root, section, (*raw[:-2], k)))


def _elsewhere(root: type[BaseModel], name: str, section: str) -> str | None:
    """The key of that name in another table, best in one of the same top-level table."""
    known = [*all_keys(root), *map("learning.optimizer_arguments.{}".format, ARGUMENTS)]
    found = [key for key in known if key.rpartition(".")[2] == name and "." in key]
    top = section.partition(".")[0]
    return min(found, key=lambda key: key.partition(".")[0] != top, default=None)


def _keys_in(root: type[BaseModel], section: str, kinds: tuple[Any, ...]) -> list[str]:
    parts = (key.rpartition(".") for key in all_keys(root, kinds))
    return list(dict.fromkeys(key for at, _, key in parts if at == section))


@functools.cache
def all_keys(root: type[BaseModel], kinds: tuple[Any, ...] = ()) -> tuple[str, ...]:
    """The dotted keys of a config; of tables of several kinds those of the kinds that are named."""
    return tuple(_known_keys(root, "", kinds))


def _known_keys(cls: type[BaseModel], prefix: str, kinds: Container[Any] = ()) -> Iterable[str]:
    """The dotted keys of a table, of a table of several kinds those of the kinds that are named, if
    any is.
    """
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
