"""Files that are no configs, and the command line on the worst of them."""

import os
import subprocess
import sys

import pytest
import tomli_w
from config_keys import ALL_KINDS, base
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rnn_dynamics as rd
from rnn_dynamics.cli import BAD_INPUT, main

GOOD = tomli_w.dumps(base(ALL_KINDS[0])).encode()
GARBAGE = {
    "empty": b"",
    "blank": b" \n\n# nothing\n",
    "not UTF-8": b"\xff\xfe\x00\x01" + GOOD,
    "UTF-16": GOOD.decode().encode("utf-16"),
    "BOM": b"\xef\xbb\xbf" + GOOD,
    "NUL": GOOD + b"\0",
    "NUL in a text": GOOD + b'[x]\ny = "\0"\n',
    "JSON": b'{"target": {"decay": 0.2}}',
    "image": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "many digits": GOOD + b"[x]\ny = " + b"9" * 5000,
    "many digits of a float": GOOD + b"[x]\ny = 1." + b"9" * 100_000,
    "huge exponent": GOOD + b"[x]\ny = 1e" + b"9" * 5000,
    "nested lists": b"x = " + b"[" * 100_000 + b"]" * 100_000,
    "nested tables": b"x = " + b"{ a = " * 5000 + b"1" + b"}" * 5000,
    "nested keys": GOOD + b"[" + b".".join([b"a"] * 2000) + b"]\n",
    "nested number": GOOD.replace(b"weight_scale", b".".join([b"weight_scale"] * 2000)),
    "long line": b"x" * 2_000_000,
    "long key": GOOD + b"x" * 2_000_000 + b" = 1\n",
    "long text": GOOD + b'x = "' + "é".encode() * 1_000_000 + b'"\n',
    "many keys": GOOD + b"".join(b"key_%d = 1\n" % i for i in range(20_000)),
    "many tables": GOOD + b"".join(b"[table_%d]\nx = 1\n" % i for i in range(5_000)),
    "dates": GOOD
    + b"[record]\nevery = 1979-05-27\nnum = 07:32:00\nspacing = 1979-05-27T07:32:00Z\n",
    "no such date": GOOD + b"[record]\nevery = 1979-13-45\n",
    "twice": GOOD + GOOD,
    "table of a number": GOOD + b"[network.weight_scale]\nx = 1\n",
    "carriage returns": GOOD.replace(b"\n", b"\r"),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_an_error_that_names_the_file(tmp_path, name):
    path = tmp_path / "café 1.toml"
    path.write_bytes(GARBAGE[name])
    with pytest.raises(rd.ConfigError) as caught:
        rd.load_experiment(path)
    assert str(caught.value).startswith(f"{path} has {len(caught.value.problems)} problem(s):\n")
    for line in caught.value.problems:
        assert line.startswith(("The file must be ", "Key `")), line
        assert line.endswith("."), line
        assert len(line) < 1000


def test_binary_and_truncated_files_are_errors_that_name_the_file(tmp_path):
    path, count = tmp_path / "config.toml", 0
    end = b"= 0.25\n"
    assert GOOD.endswith(end)
    needed = GOOD[: -len(end) + 1]

    @settings(
        max_examples=300,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.binary(max_size=60) | st.integers(0, len(needed)).map(lambda n: needed[:n]))
    def check(content):
        nonlocal count
        path.write_bytes(content)
        with pytest.raises(rd.ConfigError) as caught:
            rd.load_experiment(path)
        assert str(caught.value).startswith(f"{path} has ")
        count += 1

    check()
    assert count >= 200


def test_what_cannot_be_read_is_an_error_that_names_the_file(tmp_path):
    closed = tmp_path / "closed.toml"
    closed.write_bytes(GOOD)
    closed.chmod(0)
    loop = tmp_path / "loop.toml"
    loop.symlink_to(loop)
    paths = [tmp_path, tmp_path / "absent.toml", loop, tmp_path / ("x" * 300), tmp_path / "a\0b"]
    for path in paths + ([] if os.access(closed, os.R_OK) else [closed]):
        with pytest.raises(rd.ConfigError) as caught:
            rd.load_experiment(path)
        assert str(caught.value).startswith(
            f"{path} has 1 problem(s):\n  The file cannot be read: "
        )


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("", "Argument `--set` must have the form KEY=VALUE, but is ''."),
        ("=1", "Argument `--set` must have the form KEY=VALUE, but is '=1'."),
        ("network..num_seeds=1", "Argument `--set` must have the form KEY=VALUE, but is "),
        ("target.decay.²=1", "Key `target.decay.²` must lead through tables, but does not."),
        ("target.modes.²=1", "Key `target.modes` is unknown "),
        ("theory.models.0=1", "Key `theory.models` must be a list, but is {'0': 1}."),
        (
            "network.num_units=" + "9" * 5000,
            "Key `network.num_units` must be an integer, but is '99",
        ),
        (
            "network.num_units=" + "[" * 9999,
            "Key `network.num_units` must be an integer, but is '[[",
        ),
        (
            "network.num_units=4\nbogus=1",
            r"Key `network.num_units` must be an integer, but is '4\n",
        ),
        (
            "network.warm_start=\udcff",
            r"Key `network.warm_start` must be a text that can be printed",
        ),
        (".".join("a" * 3000) + "=1", "Key `a` is unknown "),
        ("x" * 100_000 + "=1", "` is unknown "),
    ],
)
def test_overrides_that_are_none(tmp_path, override, problem):
    path = tmp_path / "config.toml"
    path.write_bytes(GOOD)
    with pytest.raises(rd.ConfigError) as caught:
        rd.load_experiment(path, [override])
    (line,) = caught.value.problems
    assert problem in line
    assert len(line) < 1000


@pytest.mark.parametrize("name", GARBAGE)
def test_the_command_line_answers_with_exit_code_2(tmp_path, capsys, name):
    path = tmp_path / "config.toml"
    path.write_bytes(GARBAGE[name])
    assert main(["plan", str(path)]) == BAD_INPUT
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"{path} has ")


def test_the_real_command_prints_no_traceback(tmp_path):
    path = tmp_path / "config.toml"
    path.write_bytes(GOOD)
    command = [sys.executable, "-m", "rnn_dynamics", "plan"]
    for arguments in (
        [path, "--set", "network.num_units=" + "9" * 5000, "target.decay.²=1", "\udcff=1"],
        [
            path,
            "--set",
            "network.weight_scale={start=1e-320, stop=1.7e308, num=99999, spacing='log'}",
            "network.input_scale={start=1, stop=2, num=1000000}",
        ],
        [tmp_path],
    ):
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=180)
        assert done.returncode == BAD_INPUT, done
        assert "problem(s):\n  " in done.stderr
        assert "Traceback" not in done.stderr
        assert "Warning" not in done.stderr
        assert done.stdout == ""
