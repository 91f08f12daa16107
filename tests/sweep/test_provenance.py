"""The commit that a run records is that of the package's own repository."""

import subprocess

import pytest

from rnn_dynamics.sweep.storage import provenance


def git(folder, *arguments):
    line = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(
        line, cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def commit(monkeypatch, tmp_path):
    """The commit that is recorded for a file in a repository with one commit."""
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "first")

    def recorded(path):
        monkeypatch.setattr(provenance, "__file__", str(path))
        return provenance.surroundings()["git_commit"]

    return recorded


@pytest.mark.core
def test_a_repository_around_a_virtual_environment_is_not_the_packages(commit, tmp_path):
    installed = tmp_path / "venv" / "site-packages" / "provenance.py"
    installed.parent.mkdir(parents=True)
    installed.write_text("")
    assert commit(installed) is None
    (tmp_path / ".gitignore").write_text("venv\n")
    assert commit(installed) is None
    assert commit(tmp_path / "gone" / "provenance.py") is None


def test_the_commit_of_a_checkout_tells_whether_it_has_changes(commit, tmp_path, monkeypatch):
    path = tmp_path / "provenance.py"
    path.write_text("")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "second")
    head = git(tmp_path, "rev-parse", "HEAD")
    # as in a hook of another repository
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other"))
    assert commit(path) == head
    path.write_text("changed")
    assert commit(path) == f"{head}+"
