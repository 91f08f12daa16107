"""manifest.json and config.toml of a run: what they say, and how a damaged one of the two is told and mended from what is left."""

import json
from pathlib import Path
from typing import Any

from rnn_dynamics.sweep.config import ConfigError, load_experiment
from rnn_dynamics.sweep.experiment import Experiment
from rnn_dynamics.sweep.files import DamagedError, StoreError, identity_of, read_json
from rnn_dynamics.sweep.plan import Plan

SCHEMA_VERSION = 4
CONFIG, MANIFEST = "config.toml", "manifest.json"


class DamagedManifestError(StoreError):
    """The manifest is lost or not as written; the run can be told from its config and chunks."""


def new_manifest(layout: Plan, provenance: dict[str, Any]) -> dict[str, Any]:
    """A manifest with every chunk missing."""
    return {
        "schema_version": SCHEMA_VERSION,
        "config_sha256": layout.experiment.fingerprint(),
        "provenance": provenance,
        "sessions": [],
        "timings": {},
        "widths": {},
        "chunks": [
            {"index": chunk.index, "num_members": len(chunk.members), "state": "missing"}
            for chunk in layout.chunks
        ],
        "files": {},
    }


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a run.

    Raises:
        DamagedManifestError: if it is lost or not as written.
        StoreError: if it is of another schema.
    """
    path = directory / MANIFEST
    try:
        manifest = read_json(path)
    except OSError as error:
        raise DamagedManifestError(
            f"Directory `{directory}` must hold a run, but `{MANIFEST}` cannot be read: {error.strerror}."
        ) from None
    except DamagedError:
        _refuse_other_schema(path, _loosely(path))
        raise DamagedManifestError(
            f"File `{path}` must be a manifest, but is damaged. The chunks beside it are untouched: run the same command again to "
            "make a new one from them."
        ) from None
    _refuse_other_schema(path, manifest)
    return manifest


def read_config(directory: Path) -> Experiment:
    """The resolved config of a run.

    Raises:
        StoreError: if it cannot be read.
    """
    try:
        return load_experiment(directory / CONFIG)
    except ConfigError as error:
        raise StoreError(
            f"Directory `{directory}` must hold a run, but its config is damaged. {error}"
        ) from None


def check_config(directory: Path, config: Experiment, manifest: dict[str, Any]) -> None:
    """Refuse a config that is not the one that the run began with.

    Raises:
        StoreError: if so.
    """
    if config.fingerprint() != manifest["config_sha256"]:
        raise StoreError(
            f"File `{directory / CONFIG}` must be as the run began with it, but its checksum in `{MANIFEST}` is another one. Run the "
            "same command again to restore it."
        )


def refuse_another(directory: Path, experiment: Experiment) -> None:
    """Refuse a directory that holds anything but nothing or a run of this config, whole or damaged.

    Raises:
        StoreError: if so; the message names the keys that differ.
    """
    if not directory.exists():
        return
    if not directory.is_dir() or not _is_run(directory):
        raise StoreError(
            f"Directory `{directory}` must be empty or hold a run of this config, but holds something else."
        )
    fingerprints, present = _fingerprints(directory), None
    try:
        present = read_config(directory)
    except StoreError:
        # what is left of it has to say that this is its config
        if (directory / CONFIG).exists() and not fingerprints:
            raise
    different = experiment.differences(present) if present is not None else []
    if different and experiment.fingerprint() not in fingerprints:
        raise StoreError(
            f"Directory `{directory}` must be empty or hold a run of this config, but holds one that differs in "
            f"{', '.join(f'`{key}`' for key in different)}."
        )
    if fingerprints - {experiment.fingerprint()}:
        raise StoreError(
            f"Directory `{directory}` must be empty or hold a run of this config, but its `{CONFIG}` is damaged and what else is there "
            "belongs to a run of another one."
        )


def _is_run(directory: Path) -> bool:
    """Whether a directory holds a run, or what is left of one that was killed before it had begun, or nothing."""
    names = {path.name for path in directory.iterdir() if path.suffix != ".partial"}
    return bool(names & {CONFIG, MANIFEST}) or names <= {".lock", "chunks"}


def _fingerprints(directory: Path) -> set[str]:
    """The sha256 of the config, as the manifest and the first intact chunk say it."""
    found = set()
    try:
        found.add(read_manifest(directory)["config_sha256"])
    except DamagedManifestError:
        for path in sorted(directory.glob("chunks/*.npz")):
            try:
                found.add(identity_of(path)["config_sha256"])
                break
            except (OSError, DamagedError):
                continue
    return found


def _refuse_other_schema(path: Path, manifest: Any) -> None:
    if not isinstance(manifest, dict) or not isinstance(manifest.get("schema_version"), int):
        return
    schema, made = manifest["schema_version"], manifest.get("provenance", {})
    if schema != SCHEMA_VERSION:
        release, commit = made.get("versions", {}).get("rnn_dynamics"), made.get("git_commit")
        raise StoreError(
            f"File `{path}` must have schema version {SCHEMA_VERSION}, but has {schema}: open it with the release that wrote it "
            f"(rnn_dynamics {release}, commit {commit}), or run its `{CONFIG}` into another directory."
        )


def _loosely(path: Path) -> Any:
    """The manifest without a check, None if it is not even JSON; earlier schemas had no checksum of their own."""
    try:
        manifest = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return None if isinstance(manifest, dict) and "sha256" in manifest else manifest
