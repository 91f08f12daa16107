import numpy as np
import pytest

import rnn_dynamics as rd
from rnn_dynamics.sweep.config.loading import make_experiment


def experiment(**changes):
    tables = {
        "target": {"kind": "leaky_integrator", "decay": 0.2},
        "network": {"num_units": 8, "weight_scale": [0.1, 0.3], "num_seeds": 3},
        "learning": {"learning_rate": [0.01, 0.02], "num_steps": 40},
        "record": {"every": 10},
    }
    for key, value in changes.items():
        section, name = key.split("__")
        tables.setdefault(section, {})[name] = value
    return make_experiment(tables)


def test_members_are_the_product_of_axes_and_seeds():
    plan = rd.plan(experiment())
    assert plan.shape == (2, 2, 3)
    names = [plan.member_name(i) for i in range(plan.num_members)]
    assert len(set(names)) == 12
    assert names[0] == "weight_scale=0.1, learning_rate=0.01, seed=0"
    assert names[-1] == "weight_scale=0.3, learning_rate=0.02, seed=2"


def test_groups_share_shapes_and_records():
    plan = rd.plan(experiment(network__num_units=[4, 8], learning__num_steps=[20, 40]))
    assert len(plan.groups) == 4
    assert {(g.num_units, int(g.ticks[-1])) for g in plan.groups} == {
        (4, 20),
        (4, 40),
        (8, 20),
        (8, 40),
    }
    members = np.sort(np.concatenate([group.members for group in plan.groups]))
    np.testing.assert_array_equal(members, np.arange(plan.num_members))


@pytest.mark.parametrize(("size", "count"), [("auto", 1), (2, 6), (5, 3), (64, 1)])
def test_chunks_hold_every_member_once(size, count):
    plan = rd.plan(experiment(compute__chunk_size=size))
    assert len(plan.chunks) == count
    members = np.concatenate([chunk.members for chunk in plan.chunks])
    np.testing.assert_array_equal(np.sort(members), np.arange(12))
    assert all(len(chunk.members) <= plan.chunk_size for chunk in plan.chunks)
    assert plan.chunk_size >= 2


def test_automatic_chunks_are_even():
    plan = rd.plan(experiment(network__num_seeds=25))  # 100 members
    assert [len(chunk.members) for chunk in plan.chunks] == [50, 50]


@pytest.mark.parametrize(("units", "width"), [(6, 16), (64, 16), (128, 4)])
def test_automatic_chunks_of_flows_are_narrow_on_cpus(units, width):
    """Members wait for each other at every attempt, and keep some 35 matrices each: 20 to 30 % less
    time than with those of a descent.
    """
    tables = {
        "target": {"kind": "leaky_integrator", "decay": 0.2},
        "network": {"num_units": units, "weight_scale": 0.1, "num_seeds": 64},
        "learning": {"method": "gradient_flow", "train_time": 1.0},
        "record": {"num": 5},
    }
    assert rd.plan(make_experiment(tables)).chunk_size == width


@pytest.mark.parametrize(("units", "width"), [(64, 4096), (512, 512), (1024, 128)])
def test_automatic_chunks_of_accelerators_are_large_as_long_as_they_fit(units, width):
    """4,096 members of 64 units keep a GPU busy, and so do 128 of 1,024 units, with a processor for
    each: a GB of weights in float64.
    """
    plan = rd.plan(experiment(network__num_units=units, network__num_seeds=1024), platform="gpu")
    assert plan.chunk_size == width


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"every": 15}, [0, 15, 30, 40]),
        ({"num": 5}, [0, 10, 20, 30, 40]),
        ({"num": 6, "spacing": "log"}, [0, 1, 3, 6, 16, 40]),
        ({"num": 2, "spacing": "log"}, [0, 40]),
    ],
)
def test_records_of_a_descent(record, expected):
    plan = rd.plan(
        experiment(
            record__every=record.get("every"),
            **{f"record__{key}": value for key, value in record.items() if key != "every"},
        )
    )
    np.testing.assert_array_equal(plan.groups[0].ticks, expected)
    assert plan.groups[0].ticks.dtype == np.int32


def test_records_of_a_flow():
    tables = {
        "target": {"kind": "leaky_integrator", "decay": 0.2},
        "network": {"num_units": 8, "weight_scale": 0.1},
        "learning": {"method": "gradient_flow", "train_time": 1.0},
    }
    every = rd.plan(make_experiment({**tables, "record": {"every": 0.1}})).groups[0].ticks
    np.testing.assert_allclose(every, np.arange(11) / 10)
    log = rd.plan(make_experiment({**tables, "record": {"num": 4, "spacing": "log"}}))
    np.testing.assert_allclose(log.groups[0].ticks, [0, 1e-3, 10**-1.5, 1])


def test_the_plan_says_what_it_costs():
    small, large, larger = (rd.plan(experiment(network__num_units=n)) for n in (8, 64, 128))
    assert larger.flops == pytest.approx(4 * large.flops)  # of products with vectors
    assert small.flops > large.flops / 64
    text = str(small)
    for word in (
        "12 = weight_scale (2) x learning_rate (2) x seed (3)",
        "chunks",
        "memory",
        "time",
    ):
        assert word in text


def test_no_axis_has_the_name_of_something_recorded():
    """An axis over `network.overlap` used to end in an error of xarray, as `overlap` is
    recorded.
    """
    from rnn_dynamics.sweep.storage.dataset import LONG_NAMES

    recorded = {*LONG_NAMES, "step", "train_time", "record", "unit", "network_time", "model"}
    for changes in (
        {"network__overlap": 0.1, "learning__rates": {"W": 1.0}, "learning__horizon": 5.0},
        {"learning__stop": {"loss": 0.1, "train_time": 2.0, "plateau": 0.1}},
        {"learning__optimizer": "rmsprop", "learning__optimizer_arguments": {"decay": 0.5}},
    ):
        config = experiment(network__weight_scale=0.1, learning__learning_rate=0.01, **changes)
        for key in config.numbers:
            tables = config.tables()
            *path, last = key.split(".")
            table = tables
            for part in path:
                table = table[part]
            table[last] = [table[last], *(x for x in (2, 4) if x != table[last])][:2]
            try:
                name = make_experiment(tables).dimensions[key]
            except rd.ConfigError:
                continue  # not every number may be 2
            assert name not in recorded, key


def test_members_of_one_program_share_minibatch_and_number_of_steps():
    noise = {"learning__loss": "sampled", "learning__time_step": [0.1, 0.2]}
    layout = rd.plan(experiment(learning__horizon=[2.0, 4.0], learning__batch_size=[1, 2], **noise))
    steps = layout.values["learning.horizon"] / layout.values["learning.time_step"]
    batches = layout.values["learning.batch_size"]
    assert len(layout.groups) == 6  # 10, 20 and 40 steps, twice
    for group in layout.groups:
        assert len(np.unique(np.round(steps[group.members]))) == 1
        assert len(np.unique(batches[group.members])) == 1
    both = rd.plan(experiment(learning__horizon=[2.0, 4.0, float("inf")]))
    assert len(both.groups) == 2


@pytest.mark.core
@pytest.mark.parametrize(
    ("axis", "values"),
    [
        ("learning__num_steps", [1_000_000, 1_000_001, 10_000_000]),
        ("learning__learning_rate", [0.1, 0.1 + 1e-9, 0.1 + 2e-9, 1e-7]),
        ("network__weight_scale", [0.3, 0.30000000000000004, 0.0]),
        ("target__decay", [1e-5, 1.0000001e-5, 1.0]),
    ],
)
def test_no_two_members_share_a_name(axis, values):
    plan = rd.plan(experiment(**{axis: values}))
    names = {plan.member_name(i) for i in range(plan.num_members)}
    assert len(names) == plan.num_members
    short = axis.rpartition("__")[2]
    assert {float(name.split(f"{short}=")[1].split(",")[0]) for name in names} == set(values)


def test_many_compile_groups_are_planned_and_printed_in_short():
    steps = {"start": 1000, "stop": 20_999, "num": 20_000}
    plan = rd.plan(experiment(learning__num_steps=steps, network__num_seeds=1))
    assert len(plan.groups) == 20_000
    assert [int(group.ticks[-1]) for group in plan.groups] == list(range(1000, 21_000))
    for group in plan.groups[::4000]:
        lengths = plan.values["learning.num_steps"][group.members]
        assert set(lengths.tolist()) == {int(group.ticks[-1])}
        assert len(group.members) == 4
    text = str(plan)
    assert "compile groups  20000" in text
    assert "and 19990 more" in text
    assert len(text) < 3000
