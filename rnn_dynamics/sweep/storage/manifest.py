"""manifest.json and config.toml, and whether a directory holds the run of a config."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from rnn_dynamics.sweep.config.loading import ConfigError, load_experiment, to_toml
from rnn_dynamics.sweep.config.schema import Experiment
from rnn_dynamics.sweep.plan.plan import Chunk, Plan
from rnn_dynamics.sweep.storage.files import (
    DamagedError,
    StoreError,
    identity_of,
    is_temporary,
    obstacle,
    read_json,
    read_or_nothing,
)
from rnn_dynamics.sweep.storage.locks import LOCK, LOCK_FILE

SCHEMA_VERSION = 5
CONFIG, MANIFEST, CHUNKS = "config.toml", "manifest.json", "chunks"
RESULTS, TABLE, FIGURES = "results.zarr", "overlay.csv", "figures"
# name → whether it is a folder
PLACES = {LOCK: False, CONFIG: False, MANIFEST: False, TABLE: False}
PLACES |= {CHUNKS: True, RESULTS: True, FIGURES: True}
CHUNK_FILE = re.compile(r"\d{5,}\.npz|\d{5,}-\d+-\d+\.progress")
MARKS = (b'"config_sha256"', b'"num_members"')
KEYS = {"config_sha256", "chunk_size", "provenance", "sessions", "timings", "widths"}
KEYS |= {"chunks", "files"}


class DamagedManifestError(StoreError):
    """The manifest is lost or not as written; the run can be told from its config and chunks."""


def new_manifest(layout: Plan, provenance: dict[str, Any]) -> dict[str, Any]:
    """A manifest with every chunk missing."""
    return {
        "schema_version": SCHEMA_VERSION,
        "config_sha256": layout.experiment.fingerprint(),
        "chunk_size": layout.chunk_size,
        "provenance": provenance,
        "sessions": [],
        "timings": {},
        "widths": {},
        "chunks": [{**_row(chunk), "state": "missing"} for chunk in layout.chunks],
        "files": {},
    }


def check_table(directory: Path, manifest: dict[str, Any], layout: Plan) -> None:
    """Refuse a manifest whose chunks have other members than those of the plan.

    Raises:
        StoreError: if so.
    """
    rows = [{name: row.get(name) for name in _row(layout.chunks[0])} for row in manifest["chunks"]]
    if rows != [_row(chunk) for chunk in layout.chunks]:
        raise StoreError(
            f"File `{directory / MANIFEST}` must have the chunks of its config, but another "
            "release "
            "has divided the members otherwise. Run the config into another directory."
        )


def _row(chunk: Chunk) -> dict[str, Any]:
    """A chunk's layout."""
    digest = hashlib.sha256(chunk.members.astype("<i8").tobytes()).hexdigest()
    return {"index": chunk.index, "num_members": len(chunk.members), "members": digest}


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a run.

    Raises:
        DamagedManifestError: if it is lost or not as written.
        StoreError: if it is of another schema.
    """
    path = directory / MANIFEST
    _require_file(directory, MANIFEST)
    try:
        manifest = read_json(path)
    except OSError as error:
        raise DamagedManifestError(
            f"Directory `{directory}` must hold a run, but `{MANIFEST}` cannot be read: "
            f"{error.strerror}."
        ) from None
    except DamagedError:
        _refuse_other_schema(path, _loosely(path))
        manifest = {}
    _refuse_other_schema(path, manifest)
    if not manifest.keys() >= KEYS:
        raise DamagedManifestError(
            f"File `{path}` must be a manifest, but is damaged. The chunks beside it are "
            "untouched: run the same command again to "
            "make a new one from them."
        )
    return manifest


def chunk_size(directory: Path) -> int | None:
    """The chunk size of the run in a directory, whatever its config is; None if there is none."""
    try:
        return int(read_config(directory).compute.chunk_size)
    except (StoreError, ValueError):
        pass
    try:
        return int(read_manifest(directory)["chunk_size"])
    except StoreError:
        return None


def read_config(directory: Path) -> Experiment:
    """The resolved config of a run.

    Raises:
        StoreError: if it cannot be read.
    """
    _require_file(directory, CONFIG)
    try:
        return load_experiment(directory / CONFIG)
    except ConfigError as error:
        raise StoreError(
            f"Directory `{directory}` must hold a run, but its `{CONFIG}` is damaged. "
            f"{error.problems[0]}"
        ) from None


def _require_file(directory: Path, name: str) -> None:
    problem = obstacle(directory / name)
    if problem:
        raise StoreError(f"Directory `{directory}` must hold a run, but its `{name}` {problem}.")
    if not directory.exists():
        raise StoreError(f"Directory `{directory}` must hold a run, but does not exist.")


def check_config(directory: Path, config: Experiment, manifest: dict[str, Any]) -> None:
    """Refuse a config and a manifest that are not of the same run.

    Raises:
        StoreError: if so.
    """
    if config.fingerprint() != manifest["config_sha256"]:
        raise StoreError(
            f"Files `{CONFIG}` and `{MANIFEST}` of `{directory}` must be of the same run, but "
            "are of "
            "different ones: one of them was changed or replaced."
        )


def obstacles(directory: Path) -> list[str]:
    """Every folder or link in the place of a run's file, and the other way round."""
    problems = {name: obstacle(directory / name, folder) for name, folder in PLACES.items()}
    if not problems[CHUNKS]:
        # chunks are named with all others
        found = sorted((directory / CHUNKS).glob("*.progress"))
        problems |= {
            f"{CHUNKS}/{p.name}": obstacle(p) for p in found if CHUNK_FILE.fullmatch(p.name)
        }
    return [f"`{name}` {problem}" for name, problem in problems.items() if problem]


def _may_hold_run(directory: Path) -> bool:
    """Whether a directory is empty, or has files of a run or of a start that was killed.

    Raises:
        StoreError: if the directory cannot be read.
    """
    try:
        if not directory.exists():
            return True
        names = {path.name for path in directory.iterdir() if not is_temporary(path.name)}
        if names & {CONFIG, MANIFEST}:
            return True
        chunks = directory / CHUNKS
        return (
            names <= {LOCK, LOCK_FILE, CHUNKS}
            and not obstacles(directory)
            and not any((directory / name).stat().st_size for name in {LOCK, LOCK_FILE} & names)
            and not (CHUNKS in names and any(not is_temporary(p.name) for p in chunks.iterdir()))
        )
    except NotADirectoryError:
        return False
    except OSError as error:
        raise StoreError(f"Directory `{directory}` cannot be read: {error.strerror}.") from None


def is_locked(directory: Path) -> bool:
    """Whether a run has a lock in a directory.

    Raises:
        StoreError: if the directory holds neither a run nor nothing.
    """
    if not _may_hold_run(directory):
        raise _foreign(directory)
    return (directory / LOCK).exists()


def refuse_another(directory: Path, experiment: Experiment) -> None:
    """Refuse a directory that holds anything but nothing or a run of this config, whole or damaged.

    Raises:
        StoreError: if so; the message names the keys that differ.
    """
    must = f"Directory `{directory}` must be empty or hold a run of this config, but"
    if not _may_hold_run(directory):
        raise _foreign(directory)
    if not (directory / CONFIG).exists() and not (directory / MANIFEST).exists():
        return
    manifest = _manifest(directory)
    # what stands in the place of a file that the manifest lists is damage, and repaired
    own = {name.partition("/")[0] for name in manifest.get("files", ())} - {FIGURES}
    problems = [text for text in obstacles(directory) if text.split("`")[1] not in own]
    if problems:
        raise StoreError(f"{must} {problems[0]}. Move it to another place, then run again.")
    mine, present = experiment.fingerprint(), _config(directory)
    listed = manifest.get("config_sha256")
    different = [] if present is None else experiment.differences(present)
    if different:
        raise StoreError(
            f"{must} holds one that differs in {', '.join(map('`{}`'.format, different))}."
        )
    committed = _committed_config(directory)
    if listed is None:
        # nothing else says that a run has written the config
        canonical = (
            present is not None and read_or_nothing(directory / CONFIG) == to_toml(present).encode()
        )
        if not canonical or not _is_marked(directory / MANIFEST):
            raise _foreign(directory)
    if (listed or mine) != mine and (present is None or committed != mine):
        raise StoreError(f"{must} its `{MANIFEST}` is of another one.")
    if listed is None and committed not in (None, mine):
        raise StoreError(f"{must} its chunks are of another one.")


def _foreign(directory: Path) -> StoreError:
    return StoreError(
        f"Directory `{directory}` must be empty or hold a run of this config, "
        "but holds something else."
    )


def _config(directory: Path) -> Experiment | None:
    try:
        return read_config(directory)
    except StoreError:
        return None


def _manifest(directory: Path) -> dict[str, Any]:
    """The manifest, or nothing if it is damaged."""
    try:
        return read_manifest(directory)
    except DamagedManifestError:
        return {}


def _committed_config(directory: Path) -> str | None:
    """The sha256 of the config as the first intact chunk says it."""
    for path in sorted(directory.glob(f"{CHUNKS}/*.npz")):
        try:
            if obstacle(path) is None and "chunk" in (identity := identity_of(path)):
                return identity["config_sha256"]
        except (OSError, DamagedError):
            continue
    return None


def _is_marked(path: Path) -> bool:
    """Whether what is left of a manifest is a run's, or nothing is left of it."""
    content = read_or_nothing(path)
    return not content or any(mark in content for mark in MARKS)


def _refuse_other_schema(path: Path, manifest: Any) -> None:
    if not manifest or "config_sha256" not in manifest:
        return
    schema, made = manifest.get("schema_version"), manifest.get("provenance", {})
    if schema != SCHEMA_VERSION:
        release, commit = made.get("versions", {}).get("rnn_dynamics"), made.get("git_commit")
        raise StoreError(
            f"File `{path}` must have schema version {SCHEMA_VERSION}, but has {schema}: open it "
            "with the release that wrote it "
            f"(rnn_dynamics {release}, commit {commit}), or run its `{CONFIG}` into another "
            "directory."
        )


def _loosely(path: Path) -> Any:
    """A manifest of an earlier schema, which had no checksum of its own; None if it is not one."""
    try:
        manifest = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return manifest if isinstance(manifest, dict) and "sha256" not in manifest else None
