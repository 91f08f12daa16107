"""What benchmarks take from the package is there: most of them are too slow to run as tests."""

import ast
import importlib
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))


def taken(source: str) -> tuple[int, list[str]]:
    """How many names a source takes from the package, directly or from one of its modules, and
    those that are not there.
    """
    tree, known, missing, count = ast.parse(source), {}, [], 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "rnn_dynamics":
                    known[alias.asname or alias.name] = importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rnn_dynamics"):
            for alias in node.names:
                found = _get(importlib.import_module(node.module), alias.name)
                known[alias.asname or alias.name] = found
                count += 1
                if found is None:
                    missing.append(f"{node.module}.{alias.name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = known.get(node.value.id)
            if isinstance(module, ModuleType):
                count += 1
                if _get(module, node.attr) is None:
                    missing.append(f"{module.__name__}.{node.attr}")
    return count, missing


def _get(module: ModuleType, name: str) -> object:
    if hasattr(module, name):
        return getattr(module, name)
    try:
        return importlib.import_module(f"{module.__name__}.{name}")
    except ImportError:
        return None


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_all_names_are_there(script):
    assert taken(script.read_text(encoding="utf-8"))[1] == []


def test_missing_names_are_found():
    source = "import rnn_dynamics as rd\nfrom rnn_dynamics.loss.krylov import projected, nothing\n"
    count, missing = taken(source + "projected.probe, projected._bases, rd.ode.AUTO, rd.nothing")
    assert count == 6
    assert missing == [
        "rnn_dynamics.loss.krylov.nothing",
        "rnn_dynamics.loss.krylov.projected._bases",
        "rnn_dynamics.nothing",
    ]
