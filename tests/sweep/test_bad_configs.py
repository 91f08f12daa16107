"""Thousands of broken configs: each is a ConfigError that names the key, and nothing else is ever
raised.
"""

import json
import math
import time
import tomllib
from typing import Any

import pytest
import tomli_w
from config_keys import ALL_KEYS, ALL_KINDS, base, keys, put, right_number, wrong
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import rnn_dynamics as rd
from rnn_dynamics.sweep.config.fields import Number
from rnn_dynamics.sweep.config.loading import KINDS, make_experiment
from rnn_dynamics.sweep.config.optimizers import OPTIMIZERS

BY_NAME: dict[str, list[Any]] = {}
for _key in ALL_KEYS:
    BY_NAME.setdefault(_key.name, []).append(_key)
ONE_KEY = st.sampled_from(sorted(BY_NAME)).flatmap(lambda name: st.sampled_from(BY_NAME[name]))
BROKEN = ONE_KEY.filter(lambda key: key.name != "learning.optimizer_arguments").flatmap(
    lambda key: st.tuples(st.just(key), wrong(key))
)


def often(count):
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def refused(tables, *names):
    """Check the config's error for all of these keys; returns the problems."""
    with pytest.raises(rd.ConfigError) as caught:
        make_experiment(tables)
    return named(caught.value, *names)


def named(error, *names):
    for name in names:
        # an entry of a list or of a table of arguments is named below its key
        found = [line for line in error.problems if f"`{name}`" in line or f"`{name}." in line]
        assert found, (name, error.problems)
    for line in error.problems:
        assert line.startswith(("Key `", "Keys `")), line
        assert line.endswith("."), line
        assert "\n" not in line
        assert len(line) < 1000
    return error.problems


def fingerprint(value):
    try:
        return repr(value)
    except (RecursionError, ValueError):
        return type(value).__name__


def inline(value):
    """A value as TOML on one line."""
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(key)} = {inline(item)}" for key, item in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(inline, value))}]"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").removesuffix("\n")


def as_toml(value):
    """The value as TOML on one line, or None if there is no such thing."""
    try:
        text = inline(value)
        assert fingerprint(tomllib.loads(f"x = {text}")["x"]) == fingerprint(value)
    except (TypeError, ValueError, RecursionError, AssertionError, AttributeError):
        return None
    return text


def test_one_wrong_value_is_named_wherever_it_comes_from(tmp_path):
    seen, tried, files = set(), set(), 0
    path = tmp_path / "config.toml"

    @often(2100)
    @given(BROKEN)
    def check(broken):
        nonlocal files
        key, value = broken
        tables = base(key.kinds)
        put(tables, key.path, value)
        problems = refused(tables, key.name)
        assert len(problems) == 1 or key.mark is None or key.many
        seen.add(key.name)
        tried.add((key.name, fingerprint(value)))
        text = as_toml(value)
        if text is None or files >= 300:
            return
        files += 1
        path.write_text(tomli_w.dumps(tables))
        with pytest.raises(rd.ConfigError) as caught:
            rd.load_experiment(path)
        assert named(caught.value, key.name) == problems
        assert str(caught.value).startswith(f"{path} has ")
        path.write_text(tomli_w.dumps(base(key.kinds)))
        with pytest.raises(rd.ConfigError) as caught:
            rd.load_experiment(path, [f"{key.name} = {text}"])
        assert named(caught.value, key.name) == problems

    check()
    assert seen == set(BY_NAME) - {"learning.optimizer_arguments"}
    assert len(tried) >= 1500
    assert files == 300


def test_several_wrong_values_are_all_named():
    tried = set()

    @often(350)
    @given(st.data())
    def check(data):
        kinds = data.draw(st.sampled_from(ALL_KINDS))
        marked = [key for key in keys(kinds) if key.mark and "optimizer" not in key.name]
        wanted = st.lists(st.sampled_from(marked), min_size=2, max_size=5, unique=True)
        broken = {key: data.draw(wrong(key)) for key in data.draw(wanted)}
        tables = base(kinds)
        for key, value in broken.items():
            put(tables, key.path, value)
        problems = refused(tables, *(key.name for key in broken))
        assert len(problems) >= len(broken)
        tried.add(tuple((key.name, fingerprint(value)) for key, value in broken.items()))

    check()
    assert len(tried) >= 300


ODD_NAMES = {"": '""', "a.b": '"a.b"', "a\nb": '"a\\nb"', "`": '"`"', "\x1b[31m": '"\\u001b[31m"'}
NAMES = st.text(st.characters(categories=["L", "N", "S"], exclude_characters="`"), min_size=1)


def test_unknown_keys_are_named_with_the_nearest_one():
    tried = set()

    @often(500)
    @given(st.data())
    def check(data):
        kinds = data.draw(st.sampled_from(ALL_KINDS))
        tables = base(kinds)
        inner = [key for key in keys(kinds) if not key.mark and key.name != "target.modes"]
        *table, last = data.draw(st.sampled_from([key.path for key in keys(kinds)]))
        misspelt = st.sampled_from(
            [last + "s", last[1:], last[::-1], last.upper() + "é", "x" + last]
        )
        name = data.draw(misspelt | NAMES | st.sampled_from(list(ODD_NAMES)))
        siblings = {key.path[-1] for key in keys(kinds) if list(key.path[:-1]) == table}
        assume(name not in siblings | {"kind", "method"})
        assert inner
        put(tables, (*table, name), data.draw(st.integers() | st.just({"a": [1]})))
        full = ".".join(map(str, [*table, ODD_NAMES.get(name, name)]))
        (problem,) = refused(tables, full)
        assert f"Key `{full}` is unknown (the nearest known key is `" in problem
        tried.add(full)

    check()
    assert len(tried) >= 300


def test_missing_keys_and_unknown_kinds_are_named():
    count = 0
    for kinds in ALL_KINDS:
        for key in keys(kinds):
            if key.required:
                tables = base(kinds)
                table = tables
                for part in key.path[:-1]:
                    table = table[part]
                table.pop(key.path[-1])
                refused(tables, key.name)
                count += 1
        tags = [("target", "kind"), ("learning", "method"), ("learning", "schedule", "kind")]
        for path in tags if kinds[2] else tags[:2]:
            for bad in ("", "Leaky", 3, [], {}, None, True, 10**5000, ["modes"]):
                tables = base(kinds)
                put(tables, path, bad)
                (problem,) = refused(tables, ".".join(path))
                assert f"`{'.'.join(path)}` must be {KINDS[path[-2]][1][0]!r}, " in problem.replace(
                    " or", ","
                )
                count += 1
    assert count > 500


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_wrong_arguments_of_every_optimizer_are_named(optimizer):
    known = OPTIMIZERS[optimizer]
    wrong_ones: dict[str, Any] = dict.fromkeys(known.flags, 1) | {"learning_rate": 0.1, "bogus": 1}
    wrong_ones |= dict.fromkeys(known.numbers, -1)
    problems = refused(
        changed(**{"learning.optimizer": optimizer, "learning.optimizer_arguments": wrong_ones}),
        *(f"learning.optimizer_arguments.{name}" for name in wrong_ones),
    )
    assert len(problems) == len(wrong_ones)
    for bad in (3, [], "momentum", None, True):
        refused(changed(**{"learning.optimizer_arguments": bad}), "learning.optimizer_arguments")


def changed(*kinds, **changes):
    tables = base(kinds or ALL_KINDS[0])
    for name, value in changes.items():
        put(tables, tuple(int(x) if x.isdigit() else x for x in name.split(".")), value)
    return tables


DESCENT, FLOW = ALL_KINDS[0], ALL_KINDS[-1]
SAMPLED = {"learning.loss": "sampled", "learning.horizon": 2.0}


@pytest.mark.parametrize(
    ("kinds", "changes", "name"),
    [
        (DESCENT, {"target.decay": 0}, "target.decay"),
        (FLOW, {"target.modes.0.decay": [0.1, 0]}, "target.modes.0.decay"),
        (DESCENT, {"network.num_units": [1, 2], "network.overlap": 0}, "network.overlap"),
        (DESCENT, {"record.every": 1, "record.num": 9}, "record"),
        (DESCENT, {"record.every": 1, "record.spacing": "log"}, "record"),
        (DESCENT, {"record.every": 0.5}, "record.every"),
        (DESCENT, {"record.every": 1e60}, "record.every"),
        (DESCENT, {"record.every": 1, "learning.num_steps": 2_000_000_000}, "record.every"),
        (FLOW, {"record.every": 1e-60}, "record.every"),
        (FLOW, {"record.every": 0.1, "learning.train_time": [0.01, 0.1]}, "record.every"),
        (DESCENT, {"record.weights": [0, 999]}, "record.weights"),
        (DESCENT, {"network.warm_start_record": 0}, "network.warm_start_record"),
        (DESCENT, {"learning.batch_size": 3}, "learning.batch_size"),
        (DESCENT, {"learning.weighting": "time_averaged"}, "learning.weighting"),
        (DESCENT, {**SAMPLED, "learning.batch_size": 3}, "learning.time_step"),
        (DESCENT, {**SAMPLED, "learning.time_step": 0.1}, "learning.batch_size"),
        (DESCENT, {**SAMPLED, "learning.horizon": math.inf}, "learning.horizon"),
        (FLOW, {**SAMPLED, "learning.time_step": 0.1, "learning.batch_size": 3}, "learning.loss"),
        (DESCENT, {"learning.time_step": 0.3, "learning.horizon": 1}, "learning.horizon"),
        (DESCENT, {"learning.time_step": 1e-60, "learning.horizon": 1e60}, "learning.horizon"),
        (DESCENT, {"learning.time_step": 1e60, "learning.horizon": 1}, "learning.horizon"),
        (ALL_KINDS[1], {"learning.optimizer": "rprop"}, "learning.schedule.kind"),
        (ALL_KINDS[4], {"learning.schedule.warmup_steps": 99}, "learning.schedule.warmup_steps"),
    ],
)
def test_contradictions_are_named(kinds, changes, name):
    (problem,) = [p for p in refused(changed(*kinds, **changes), name) if f"`{name}`" in p]
    assert " must " in problem


def test_sweeps_beyond_all_bounds_are_refused_at_once():
    start = time.monotonic()
    thousand = {"start": 1, "stop": 1000, "num": 1000}
    names = ["target.decay", *(f"network.{x}_scale" for x in ("weight", "input", "output"))]
    (problem,) = refused(changed(**dict.fromkeys(names, thousand)), *names)
    assert problem == (
        "Keys `target.decay` (1000), `network.weight_scale` (1000), `network.input_scale` (1000), "
        "`network.output_scale` (1000) must combine to at most 10000000 members, but combine to "
        "1000000000000."
    )
    many = {"start": 1, "stop": 2, "num": 20_000}
    (problem,) = refused(
        changed(**{"learning.time_step": many, "learning.horizon": many}),
        *("learning.time_step", "learning.horizon"),
    )
    assert "combine to 400000000." in problem
    modes = [{"decay": [1.0]}] * 61
    (problem,) = refused({**base(FLOW), "target": {"kind": "modes", "modes": modes}})
    assert problem.endswith("`target.modes.4.decay`, … must be at most 60 axes in all, but are 61.")
    assert time.monotonic() - start < 10


def test_every_number_has_a_largest_value_that_is_checked_as_an_integer():
    for key in ALL_KEYS:
        if isinstance(key.mark, Number) and key.mark.integer:
            assert key.mark.maximum < 2**31, key.name
            assert right_number(key.mark) <= key.mark.maximum
