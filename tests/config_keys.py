"""Every key of a config, found in the models, with values that are right for it and values that are
wrong.
"""

import datetime
import functools
import itertools
import math
from typing import Any, NamedTuple, get_args

from hypothesis import strategies as st
from pydantic import BaseModel

from rnn_dynamics.sweep.config.fields import Choice, Number, Text
from rnn_dynamics.sweep.config.loading import KINDS
from rnn_dynamics.sweep.config.optimizers import OptimizerArguments
from rnn_dynamics.sweep.config.recording import Weights
from rnn_dynamics.sweep.config.schema import ChunkSize, Experiment

MARKS = (Number, Choice, Text, Weights, OptimizerArguments)


class Key(NamedTuple):
    """A key: where it is, what may be there, and in which kinds of tables."""

    path: tuple[Any, ...]
    mark: Any  # what checks it, or None for a table or a list of tables
    many: bool  # a list of what the mark checks
    required: bool
    optional: bool  # None means that it is absent
    kinds: tuple[str, ...]  # of target, learning and schedule

    @property
    def name(self) -> str:
        return ".".join(map(str, self.path))


@functools.cache
def keys(kinds: tuple[str, ...]) -> list[Key]:
    """The keys of a config of these kinds of target, learning and schedule, tables before what is
    in them.
    """
    return list(_keys(Experiment, (), kinds))


def _keys(cls: type[BaseModel], path: tuple[Any, ...], kinds: tuple[str, ...]) -> Any:
    for name, field in cls.model_fields.items():
        here = (*path, name)
        tag = KINDS.get(path[-1] if path else None)
        if tag and name == tag[0]:
            continue  # its words are another kind's
        marks = [*field.metadata, *_within(field.annotation, MARKS)]
        mark = next((mark for mark in marks if isinstance(mark, MARKS)), None)
        many = "tuple[typing.Annotated" in str(field.annotation)
        parts = get_args(field.annotation)
        required = field.is_required() and name != "weighting"  # which the table fills in itself
        yield Key(here, mark, many, required, type(None) in parts, kinds)
        tables = _tables(field.annotation)
        if len(tables) > 1:
            tables = [table for table in tables if _kind(table) in kinds]
        for table in tables:
            inside = (*here, 0) if name == "modes" else here
            yield from _keys(table, inside, kinds)


def _within(annotation: Any, wanted: Any) -> list[Any]:
    own = [x for x in getattr(annotation, "__metadata__", ()) if isinstance(x, wanted)]
    return own + [x for part in get_args(annotation) for x in _within(part, wanted)]


def _tables(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [table for part in get_args(annotation) for table in _tables(part)]


def _kind(table: type[BaseModel]) -> Any:
    return (table.model_fields.get("kind") or table.model_fields["method"]).default


ALL_KINDS = [
    (target, "gradient_descent", schedule)
    for target, schedule in itertools.product(KINDS["target"][1], KINDS["schedule"][1])
] + [(target, "gradient_flow", "") for target in KINDS["target"][1]]
ALL_KEYS = list({(key.path, key.kinds): key for kinds in ALL_KINDS for key in keys(kinds)}.values())


def base(kinds: tuple[str, ...]) -> dict[str, Any]:
    """A valid config of the required keys alone."""
    target, method, schedule = kinds
    tables: dict[str, Any] = {"target": {"kind": target}, "learning": {"method": method}}
    if schedule:
        tables["learning"]["schedule"] = {"kind": schedule}
    for key in keys(kinds):
        if key.required and isinstance(key.mark, Number):
            put(tables, key.path, right_number(key.mark))
    return tables


def right_number(number: Number) -> Any:
    """A number in the range."""
    low = max(number.minimum, -2.0)
    return int(low) + 1 if number.integer else max(low, 0) + 0.25


def put(tables: Any, path: tuple[Any, ...], value: Any) -> None:
    """Set a key, and make the tables on the way to it."""
    for part, after in itertools.pairwise(path):
        if isinstance(part, int):
            while len(tables) <= part:
                tables.append({})
            tables = tables[part]
        else:
            tables = tables.setdefault(part, [] if isinstance(after, int) else {})
    tables[path[-1]] = value


DEEP: list[Any] = functools.reduce(lambda inner, _: [inner], range(3000), [])
# nothing of a config is any of these
NOTHING = st.sampled_from(
    [
        *(datetime.date(1979, 5, 27), datetime.datetime(1979, 5, 27, 7, 32), datetime.time(7)),
        *(
            b"\xff",
            1j,
            object(),
            {1: 2},
            {"": {}},
            [[]],
            [{}],
            [None],
            [[[0.1]]],
            [[0.1, 0.2]],
            [DEEP],
        ),
        *(set(), frozenset({3}), {"start": 1, 2: 3}, {"a": {"b": {"c": [1, {"d": 2}]}}}, [True]),
    ]
)
HUGE = st.sampled_from([10**400, -(10**400), 10**4000, -(10**4000), 2**63, 2**64])
TEXTS = st.text(max_size=12).map("not a word {}".format)


@functools.cache
def wrong(key: Key) -> st.SearchStrategy[Any]:
    """Values that this key may not have."""
    mark = key.mark
    absent = st.nothing() if key.optional else st.none()
    if key.many:
        words = ["word_subspace"] if key.path[-1] == "models" else ["loss"]
        entry = NOTHING | TEXTS | st.booleans() | st.integers() | st.none()
        wrapped = entry.map(lambda bad: [*words, bad])
        repeated = st.nothing() if key.path[-1] == "models" else st.just(["loss", "loss"])
        return wrapped | repeated | TEXTS | st.integers() | absent | st.floats()
    if isinstance(mark, Number):
        return wrong_number(mark) | absent
    if isinstance(mark, Choice):
        misspelt = st.sampled_from(mark.names).map(lambda word: word.upper() + "_")
        return (
            NOTHING | HUGE | TEXTS | misspelt | st.booleans() | st.integers() | absent | st.floats()
        )
    if isinstance(mark, Text):
        odd = st.sampled_from(["", "a\0b", "line\nbreak", "\udcff", "\x1b[31m"])
        return NOTHING | HUGE | odd | st.booleans() | st.integers() | st.floats()
    if isinstance(mark, Weights):
        entry = NOTHING | HUGE | TEXTS | st.booleans() | st.floats()
        return (
            entry.map(lambda bad: [0, bad]) | HUGE | TEXTS | st.just([1, 1]) | st.floats() | absent
        )
    # a table, or a list of tables
    no_table = HUGE | TEXTS | st.booleans() | st.integers() | st.floats() | st.binary(max_size=3)
    return no_table | absent if key.path[-1] == "modes" else no_table | st.just([]) | absent


def wrong_number(number: Number) -> st.SearchStrategy[Any]:
    """Wrong types, values out of range, and wrong axes of a number."""
    values = [NOTHING, HUGE if number.integer else HUGE.filter(lambda x: abs(x) > 2**100)]
    values += [st.booleans(), st.just(math.nan), st.just(-math.inf), st.just([])]
    values.append(TEXTS.filter(lambda text: not isinstance(number, ChunkSize) or text != "auto"))
    if not number.infinite:
        values.append(st.just(math.inf))
    if number.integer:
        values.append(st.floats())
    else:
        values.append(st.sampled_from([5e-324, 1e-61, -1e-61, 1.1e60, -1.1e60, 10**61, 1.7e308]))
    low = 0.0 if number.positive else number.minimum
    below = st.integers(-(10**6), int(low) - 1) if low > -(10**6) else st.nothing()
    if not number.integer and low > -math.inf:
        below |= st.floats(-1e300, low, exclude_max=True)
        below |= st.just(0) if number.positive else st.nothing()
    above = st.nothing()
    if number.maximum < math.inf:
        above = st.integers(math.floor(number.maximum) + 1, 10**30)
    one = st.one_of(*values, below, above)
    right = right_number(number)
    if not number.axis:
        return one | st.just([right]) | st.just({"start": right, "stop": right, "num": 1})
    lists = one.filter(lambda bad: bad != []).map(lambda bad: [right, bad])
    return one | lists | st.just([right, right]) | wrong_spacing(right)


def wrong_spacing(right: Any) -> st.SearchStrategy[Any]:
    """Tables { start, stop, num, spacing } with something wrong in them."""
    good = {"start": right, "stop": right + 2, "num": 2}
    bad_end = NOTHING | HUGE.filter(lambda x: abs(x) > 2**100) | TEXTS | st.booleans()
    bad_end |= st.sampled_from([math.nan, math.inf, None])
    changes = [
        st.sampled_from(["start", "stop"]).flatmap(lambda end: bad_end.map(lambda x: {end: x})),
        (NOTHING | HUGE | TEXTS | st.integers(max_value=0) | st.floats()).map(lambda x: {"num": x}),
        (NOTHING | TEXTS | st.integers()).map(lambda x: {"spacing": x}),
        st.just({"stop": right, "num": 3}),
        st.just({"start": 0, "spacing": "log"}),
        st.just({"start": -1.7e308, "stop": 1.7e308}),
        TEXTS.map(lambda name: {name: 1}),
    ]
    missing = st.sampled_from(list(good)).map(lambda k: {n: good[n] for n in good if n != k})
    return missing | st.one_of(changes).map(lambda change: good | change)
