"""Figures and table of the benchmarks, from made-up lines of all kinds."""

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MACHINE = {"device": "made up", "cores": 2, "python": "3.99", "jax": "0.99"}


@pytest.fixture
def draw(monkeypatch):
    """The script as a module, as it finds its neighbours when it is run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("draw", "draw_figures", "draw_flow", "draw_peers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import draw

    return draw


def three(name, value):
    return {f"{name}_median": value, f"{name}_least": 0.8 * value, f"{name}_largest": 1.3 * value}


def peers():
    bars = {"(a) torch, a loop over networks": 1000, "(b) torch vmap": None, "engine float32": None}
    for units, members in ((32, 64), (64, 64), (64, 4096)):
        for scale, peer in zip((1500.0, 40.0, 0.6), bars, strict=True):
            if (units, peer) == (32, "(b) torch vmap"):  # not measured everywhere
                continue
            scale *= 64 / members
            row = {"peer": peer, "units": units, "members": members, "dtype": "float32"}
            row |= three("us_per_member_step", 50 * scale) | three("ratio", scale)
            row |= three("ratio_like", 2 * scale)
            yield row | {"compile_s": 1.0, "error": 1e-6, "bar": bars[peer], "met": True}
        row = {"peer": "engine float64", "units": units, "members": members, "dtype": "float64"}
        row |= three("us_per_member_step", 50.0) | three("ratio", 1.0)
        yield row | {"compile_s": 2.0, "error": 1e-15, "bar": None, "met": None}


def ode():
    speeds = {"ours TSIT5": 1.0, "ours RODAS5P": 2.0, "diffrax Tsit5": 1.5, "SciPy LSODA": 50.0}
    for problem, members in (("outlier", 1), ("pair", 1), ("batch", 10_000)):
        for rtol in (1e-4, 1e-6, 1e-8):
            for peer, speed in speeds.items():
                row = {"problem": problem, "peer": peer, "rtol": rtol, "members": members}
                row |= three("us_per_member", 200 * speed * rtol**-0.1) | three("ratio", speed)
                judged = peer == "diffrax Tsit5"
                row |= {"bar": 2.0 if judged else None, "met": False if judged else None}
                yield row | {"error": rtol * speed, "evaluations": 900.0, "dtype": "float64"}


def scaling():
    base = {"units": 64, "members": 256, "devices": 1, "dtype": "float64", "exponent": None}
    for units in (16, 64, 256, 1024):
        row = base | {"axis": "units", "units": units, "exponent": 2.04, "bar": 2.3, "met": True}
        yield row | three("us_per_member_step", 0.01 * units**2.04)
    for members in (1, 64, 4096):
        row = base | {"axis": "members", "members": members, "spread": 0.2, "bar": 0.1}
        yield row | {"met": False} | three("us_per_member_step", 40.0 + 20.0 / members)
    for members in (100, 1000, 10_000):
        row = base | {"axis": "memory", "members": members, "units": 32, "peak_mb": 700.0}
        yield row | dict.fromkeys(three("us_per_member_step", 1.0))
    for devices in (1, 2, 4):
        row = base | {"axis": "devices", "devices": devices, "speedup": min(devices, 2) * 0.9}
        yield row | three("us_per_member_step", 40.0 / min(devices, 2))


def ceiling():
    for units in (64, 128):
        for scale in (0.1, 0.4):
            row = {"variant": "engine", "units": units, "weight_scale": scale, "engine_us": 50.0}
            row |= {"dtype": "float64", "gemm_us": 10.0, "gemv_us": 29.0, "fraction": 0.78}
            yield row | {"bar": 0.75, "met": True}
        row = {"variant": "one pass over W", "units": units, "dtype": "float64", "ratio": 1.2}
        row |= {"ratio_least": 1.1, "ratio_largest": 1.4, "trained": False}
        yield row | dict.fromkeys(("engine_us", "gemm_us", "gemv_us", "fraction"))


def start():
    for case in ("quickstart", "oscillator"):
        for cache, compile_s in (("none", 9.0), ("cold", 9.5), ("warm", 0.5)):
            row = {"case": case, "cache": cache, "import_s": 1.5, "trace_s": 2.0, "run_s": 0.7}
            yield row | {"compile_s": compile_s, "programs": 12}


def flow():
    base = {"kind": "alone", "members": 1, "bar": None, "met": None}
    for decay, counts in ((0.2, (250, 2500)), (0.02, (7000,))):
        for rtol in (1e-3, 1e-5):
            for method, count in zip(("AUTO", "TSIT5"), counts, strict=False):
                row = base | {"decay": decay, "rtol": rtol, "method": method, "gradients": count}
                row |= three("seconds", 1e-4 * count) | {"error": rtol, "ratio": 2500 / count}
                judged = method == "AUTO" and decay == 0.2
                yield row | ({"bar": 4.0, "met": True} if judged else {})
    row = base | {"kind": "batch", "members": 16, "decay": None, "time_ratio": 1.5}
    yield row | {"method": "AUTO", "rtol": 1e-5} | three("seconds", 1.0)


def columns_grid():
    for error in (1e-15, 1e-9, 2e-8):
        yield {"units": 64, "error": error}


def columns_random():
    for units, share in ((64, 1.0), ("all", 0.994)):
        yield {"units": units, "members": 1000, "reported_enough": share}


def columns_grid_jax():
    yield from list(columns_grid())[:2]


def precision():
    for what, bar in (("product, highest", 1e-6), ("product, default", None)):
        yield {"what": what, "dtype": "float32", "error": 4e-7, "bar": bar, "met": bar and True}


def of_both_dtypes(make):
    for dtype in ("float64", "float32"):
        for row in make():
            yield row | {"dtype": dtype}


LINES = {make.__name__: make for make in (peers, ode, scaling, ceiling, start, flow)}
TABLED = {
    make.__name__: make for make in (columns_grid, columns_grid_jax, columns_random, precision)
}


def write(folder, platform, names):
    for name in names:
        rows = (row | MACHINE | {"platform": platform} for row in {**LINES, **TABLED}[name]())
        text = "\n".join(json.dumps({"benchmark": name, **row}) for row in rows)
        (folder / f"{name}_{platform}.jsonl").write_text(text + "\n")


def run(draw, monkeypatch, folder, readme):
    monkeypatch.setattr(draw, "DOTS", 20)
    monkeypatch.setattr(sys, "argv", ["draw.py", "--results", str(folder), "--readme", str(readme)])
    draw.main()


def test_all_results_are_drawn_and_tabled(draw, monkeypatch, tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(f"# Above\n\n{draw.BEGIN}\nold\n{draw.END}\n\n# Below\n", encoding="utf-8")
    write(tmp_path, "cpu", LINES)
    write(tmp_path, "cpu", TABLED)
    write(tmp_path, "gpu", ["peers", "columns_random"])
    (tmp_path / "ode_notes_cpu.jsonl").write_text("not read\n")
    run(draw, monkeypatch, tmp_path, readme)
    figures = {path.name for path in tmp_path.glob("*.png")}
    assert figures == {f"speed_{name}_cpu.png" for name in LINES} | {"speed_peers_gpu.png"}
    text = readme.read_text(encoding="utf-8")
    assert "old" not in text
    assert text.startswith("# Above")
    assert text.endswith("# Below\n")
    assert "| measured | wanted | CPU | GPU |" in text
    result = "1,500× (1,200 to 1,950); 3,000× (2,400 to 3,900) in float32"
    assert f"| ≥ 1,000× | {result} | {result} |" in text
    assert "batch of 10,000" in text
    assert "speed-up by devices |  | 1.80× on 2 |" in text
    assert "decay 0.2, rtol 1e-03, 1e-05 | ≥ 4× | 10×, 10× |" in text
    assert "16 members in one batch |  | 1.5× the time of two batches of like ones |" in text
    assert "**not met**" in text
    assert "Python 3.99, JAX 0.99" in text
    assert "kinds of networks | 3 | 2 of 3, **not met** |" in text
    assert "kinds of networks, by JAX alone | 2 | 2 of 2 |" in text
    assert "1,000 random networks | ≥ 99% | 99.4% | 99.4% |" in text
    assert "error of the product, highest | ≤ 1e-06 | 4.0e-07 |" in text
    assert "product, default" not in text
    assert "skipped" not in capsys.readouterr().out
    # The same table again: nothing piles up.
    run(draw, monkeypatch, tmp_path, readme)
    assert readme.read_text(encoding="utf-8") == text


def test_growth_and_ceiling_of_two_dtypes(draw, monkeypatch, tmp_path):
    """The table has float64's growth, and a line for each dtype of the ceiling; what is being
    written is not read.
    """
    readme = tmp_path / "README.md"
    readme.write_text(f"{draw.BEGIN}\n{draw.END}\n", encoding="utf-8")
    for name in ("scaling", "ceiling"):
        monkeypatch.setitem(LINES, name, lambda make=LINES[name]: of_both_dtypes(make))
    write(tmp_path, "gpu", ["scaling", "ceiling"])
    (tmp_path / "peers_gpu.jsonl.part").write_text("not read\n")
    run(draw, monkeypatch, tmp_path, readme)
    text = readme.read_text(encoding="utf-8")
    assert text.count("cost grows as N to the power") == 1
    assert text.count("share of the step, 64 units |") == 1
    assert text.count("share of the step, 64 units, float32 |") == 1
    assert {path.stem for path in tmp_path.glob("*.png")} == {
        "speed_scaling_gpu",
        "speed_ceiling_gpu",
    }


def test_what_is_missing_is_named(draw, monkeypatch, tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text("nothing here\n")
    run(draw, monkeypatch, tmp_path, readme)  # no results: no table
    assert capsys.readouterr().out.count("skipped") == len(LINES)
    write(tmp_path, "cpu", ["start"])
    for text in (
        "nothing here\n",
        f"{draw.END}\n{draw.BEGIN}\n",
        2 * f"{draw.BEGIN}\n{draw.END}\n",
    ):
        readme.write_text(text, encoding="utf-8")
        with pytest.raises(SystemExit, match="add once") as failure:
            run(draw, monkeypatch, tmp_path, readme)
        assert draw.BEGIN in str(failure.value)
        assert draw.END in str(failure.value)
        assert readme.read_text(encoding="utf-8") == text
    assert (tmp_path / "speed_start_cpu.png").exists()
    assert "peers: no peers_<platform>.jsonl, skipped" in capsys.readouterr().out
