import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rnn_dynamics import cli

CONFIG = """
[target]
kind = "leaky_integrator"
decay = 0.3
[network]
num_units = 4
weight_scale = [0.1, 0.3]
num_seeds = 2
[learning]
learning_rate = 0.05
num_steps = 40
[record]
num = 3
[theory]
models = ["word_subspace"]
word_subspace = { max_length = 0 }
[compute]
chunk_size = 2
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    (folder / "small.toml").write_text(CONFIG)
    arguments = ["run", str(folder / "small.toml"), "--out", str(folder / "run"), "--quiet"]
    assert cli.main(arguments) == cli.DONE
    return folder / "run"


@pytest.mark.core
def test_run_ends_with_the_table_and_the_figures(directory, capsys):
    assert cli.main(["overlay", str(directory)]) == cli.DONE
    text = capsys.readouterr().out
    assert "word_subspace_0" in text
    assert "outlier error" in text
    table = (directory / "overlay.csv").read_text().splitlines()
    assert table[0] == "weight_scale,theory,loss_error,outlier_error,within,why_not"
    assert len(table) == 3
    names = {path.stem for path in (directory / "figures").iterdir()}
    always = {"loss_curves", "outlier_curves", "spectra", "impulse_responses"}
    assert names == always | {"phase_plane", "rich_to_lazy"}
    assert cli.main(["plot", str(directory)]) == cli.DONE
    assert (directory / "figures" / "spectrum.gif").is_file()


def test_info_checks_every_byte(directory, capsys):
    assert cli.main(["info", str(directory)]) == cli.DONE
    assert "checksums   all match" in capsys.readouterr().out
    path = next(p for p in (directory / "results.zarr" / "loss").rglob("*") if p.is_file())
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    assert cli.main(["info", str(directory)]) == cli.MEMBERS_FAILED
    assert "is not as written" in capsys.readouterr().out
    path.write_bytes(content)


def test_plan_runs_nothing(config, capsys, tmp_path):
    assert cli.main(["plan", str(config), "--set", "network.num_seeds=5"]) == cli.DONE
    assert "10 = weight_scale (2) x seed (5)" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [config]


def test_members_that_fail_are_named(config, capsys, tmp_path):
    arguments = ["run", str(config), "--out", str(tmp_path / "run"), "--quiet"]
    changes = ["--set", "learning.learning_rate=[0.05, 3.0]", "--set", "theory.models=[]"]
    assert cli.main([*arguments, *changes]) == cli.MEMBERS_FAILED
    assert "weight_scale=0.1, learning_rate=3, seed=0: " in capsys.readouterr().err


@pytest.mark.core
def test_bad_configs_and_directories_are_exit_code_2(config, capsys, tmp_path, directory):
    assert cli.main(["run", str(config), "--set", "target.decay=-1", "x.y=1"]) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert "`target.decay`" in error
    assert "`x`" in error
    changed = ["run", str(config), "--out", str(directory), "--set", "compute.seed=3"]
    assert cli.main(changed) == cli.BAD_INPUT
    assert "differs in `compute.seed`" in capsys.readouterr().err
    assert cli.main(["info", str(tmp_path / "nothing")]) == cli.BAD_INPUT
    both = ["run", "a", "--shard", "1/2", "--distributed"]
    for arguments in ([], ["fly"], ["run"], ["plan", "a", "--sharp"], both):
        with pytest.raises(SystemExit) as stopped:
            cli.main(arguments)
        assert stopped.value.code == cli.BAD_INPUT


def test_help_plans_and_config_errors_do_not_wait_for_jax(config):
    code = (
        "import sys; from rnn_dynamics import cli;"
        f"assert cli.main(['plan', {str(config)!r}]) == 0;"
        f"assert cli.main(['run', {str(config)!r}, '--set', 'target.decay=-1']) == 2;"
        "assert 'jax' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_cores_are_devices_where_that_pays(config, tmp_path, seconds):
    code = (
        "import os; from rnn_dynamics import cli;"
        f"os.cpu_count = lambda: 2; cli.LEAST_SECONDS_SHARED = {seconds};"
        f"assert cli.main(['run', {str(config)!r}, '--out', {str(tmp_path / 'run')!r}, "
        "'--quiet', '--set', 'theory.models=[]']) == 0;"
        "import jax; print(jax.local_device_count())"
    )
    environment = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, env=environment
    )
    assert done.stdout.split()[-1] == (b"2" if seconds == 0 else b"1")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_exit_code_3_and_resumes(config, tmp_path, number):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "rnn_dynamics", "run", str(config), "--out", str(out)]
    # many chunks that take a while each
    command += ["--quiet", "--set", "network.num_seeds=400", "learning.num_steps=20000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
    deadline = time.monotonic() + 120
    while not list(Path(out, "chunks").glob("*.npz")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, error = process.communicate(timeout=180)
    assert process.returncode == cli.INTERRUPTED
    assert "The same command goes on" in error
    info = [sys.executable, "-m", "rnn_dynamics", "info", str(out)]
    text = subprocess.run(info, capture_output=True, text=True, check=False).stdout
    assert "not computed yet" in text
    assert "does not match" not in text


def test_a_disk_that_fills_up_is_exit_code_3(config, tmp_path):
    """A limit on the size of files makes the operating system refuse for real."""
    code = (
        "import resource, sys; from rnn_dynamics import cli;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000));"
        f"sys.exit(cli.main(['run', {str(config)!r}, '--out', {str(tmp_path / 'run')!r}, "
        "'--quiet']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "must have room for the results, but: File too large" in done.stderr
    assert done.returncode == cli.INTERRUPTED
