"""A run on disk. Whatever is committed is never lost, and nothing that is damaged is ever used.

    DIR/config.toml           the resolved config
    DIR/manifest.json         schema, config hash, chunk table with sha256, provenance, timings, checksums of the files below
    DIR/chunks/00000.npz      the results of a chunk: the source of truth, sealed by its own sha256
    DIR/chunks/*.progress     a chunk under way, to go on from; deleted when it is committed
    DIR/results.zarr          the whole dataset for others' tools, written when the run is complete
    DIR/overlay.csv, figures/

The manifest tells what the chunks are; where it lags behind them, after a kill or beside other processes, they are right. It is
changed under a lock, from what is on disk.
"""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rnn_dynamics.sweep.claims import MANIFEST as MANIFEST_CLAIM
from rnn_dynamics.sweep.claims import Claims
from rnn_dynamics.sweep.config import to_toml
from rnn_dynamics.sweep.experiment import Experiment
from rnn_dynamics.sweep.files import (
    DamagedError,
    StoreError,
    WriteError,
    identity_of,
    read_arrays,
    set_aside,
    sha256,
    write_arrays,
    write_bytes,
    write_json,
    writing,
)
from rnn_dynamics.sweep.manifest import (
    CONFIG,
    MANIFEST,
    DamagedManifestError,
    check_config,
    new_manifest,
    read_config,
    read_manifest,
)
from rnn_dynamics.sweep.plan import Plan

DERIVED = ("results.zarr", "overlay.csv", "figures")
# the chunks are what counts; thousands of small ones need not wait for it
SECONDS_BETWEEN_MANIFESTS = 2.0


class Store:
    """A run directory.

    Attributes:
        directory: where it is.
        experiment: its resolved config.
        manifest: the manifest as it was last read or written.
    """

    def __init__(
        self, directory: Path, experiment: Experiment, manifest: dict[str, Any], claims: Any = None
    ) -> None:
        self.directory, self.experiment, self.manifest = directory, experiment, manifest
        self._claims: Claims | None = claims
        self._new_rows: dict[int, dict[str, Any]] = {}
        self._saved = -np.inf
        self._lock = threading.RLock()  # devices commit from threads of their own

    @classmethod
    def create(
        cls, directory: Path, layout: Plan, claims: Claims, provenance: dict[str, Any]
    ) -> "Store":
        """Begin a run in a directory that `refuse_another` let pass, or go on with the one in it, mended where it is damaged.

        Raises:
            StoreError: if it cannot be written.
        """
        experiment = layout.experiment
        try:
            with writing(directory), claims.alone(MANIFEST_CLAIM):
                (directory / "chunks").mkdir(exist_ok=True)
                try:
                    manifest = read_manifest(directory)
                except DamagedManifestError:
                    set_aside(directory / MANIFEST)
                    manifest = new_manifest(layout, provenance)
                if not _is_config(directory, experiment):
                    set_aside(directory / CONFIG)
                    write_bytes(directory / CONFIG, to_toml(experiment).encode())
                manifest["files"][CONFIG] = sha256(directory / CONFIG)
                write_json(directory / MANIFEST, manifest)
        except WriteError as error:
            raise StoreError(str(error)) from error
        store = cls(directory, experiment, manifest, claims)
        store._enter_found_chunks()
        return store

    @classmethod
    def open(cls, directory: Path) -> "Store":
        """Open a run that exists, to read it.

        Raises:
            StoreError: if there is none, or its manifest or config is damaged or of an unknown schema.
        """
        manifest, experiment = read_manifest(directory), read_config(directory)
        check_config(directory, experiment, manifest)
        return cls(directory, experiment, manifest)

    def is_done(self, index: int) -> bool:
        """Whether a chunk was committed, intact or not."""
        return self.manifest["chunks"][index]["state"] == "done" or self._chunk_path(index).exists()

    def damages(self) -> dict[int, str]:
        """Every chunk that has to be computed, with the reason: not computed yet, lost, or not as written."""
        found = {index: self.damage(index) for index in range(len(self.manifest["chunks"]))}
        return {index: problem for index, problem in found.items() if problem is not None}

    def damage(self, index: int) -> str | None:
        """What is wrong with a chunk: None if it is committed and intact."""
        path = self._chunk_path(index)
        try:
            identity = identity_of(path)
        except FileNotFoundError:
            return f"`{path.name}` is lost" if self.is_done(index) else "not computed yet"
        except OSError as error:
            return f"`{path.name}` cannot be read: {error.strerror}"
        except DamagedError:
            return f"`{path.name}` does not match its checksum"
        if identity["config_sha256"] != self.manifest["config_sha256"]:
            return f"`{path.name}` belongs to a run of another config"
        if identity["chunk"] != index:
            return f"`{path.name}` is chunk {identity['chunk']}"
        return None

    def file_damages(self) -> list[str]:
        """What is wrong with the files beside the chunks: lost, changed or added since they were written."""
        written, found = self.manifest["files"], []
        # of a table and figures beside a manifest that had to be made anew nobody knows whether they are whole
        paths = [path for name in DERIVED for path in self._files(name)]
        present = set(written) | set(self._relative(paths))
        for name in sorted(present):
            path = self.directory / name
            if name not in written:
                found.append(f"`{name}` has no checksum: the run did not write it, or draw it anew")
            elif not path.is_file():
                found.append(f"`{name}` is lost")
            elif sha256(path) != written[name]:
                found.append(f"`{name}` is not as written")
        return found

    @property
    def has_results(self) -> bool:
        """Whether results.zarr is there, as it was written."""
        names = [name for name in self.manifest["files"] if name.startswith("results.zarr/")]
        return bool(names) and not any("results.zarr/" in text for text in self.file_damages())

    def commit(
        self, index: int, arrays: dict[str, np.ndarray], width: int, facts: dict[str, Any]
    ) -> None:
        """Write the results of a chunk, whole or not at all.

        Raises:
            WriteError: if the disk is full or cannot be written.
        """
        path = self._chunk_path(index)
        with writing(self.directory):
            path.parent.mkdir(exist_ok=True)
            write_arrays(path, arrays, self._identity(index, width))
            digest = sha256(path)
        with self._lock:
            row = {"state": "done", "sha256": digest, "width": width, **facts}
            self._new_rows[index] = row
            if time.monotonic() - self._saved > SECONDS_BETWEEN_MANIFESTS:
                self.update()

    def read(
        self, index: int, wanted: Callable[[str], bool] = lambda _: True
    ) -> dict[str, np.ndarray]:
        """The results of a committed chunk, those with a name that is wanted; the whole file is checked first.

        Raises:
            StoreError: if the file is lost or damaged.
        """
        damage = self.damage(index)
        if damage:
            raise StoreError(
                f"Chunk {index} of `{self.directory}` must be intact, but {damage}. "
                "Run the same command again to compute it anew."
            )
        return read_arrays(self._chunk_path(index), wanted)

    def tidy(self) -> None:
        """Delete what killed processes were writing, once the run is complete."""
        with writing(self.directory), self._alone():
            for folder in (self.directory, self.directory / "chunks"):
                for path in folder.glob("*.partial"):
                    if path.is_dir():
                        shutil.rmtree(path, ignore_errors=True)
                    else:
                        path.unlink(missing_ok=True)

    def update(self, change: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
        """Change the manifest that is on disk, beside other processes that do the same.

        Raises:
            WriteError: if it cannot be written.
        """
        with writing(self.directory), self._alone():
            try:
                manifest = read_manifest(self.directory)
            except DamagedManifestError:
                set_aside(self.directory / MANIFEST)
                manifest = self.manifest
            for index, row in self._new_rows.items():
                manifest["chunks"][index] |= row
            change(manifest)
            write_json(self.directory / MANIFEST, manifest)
            self.manifest, self._saved = manifest, time.monotonic()
            self._new_rows.clear()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Neither another thread nor another process writes what this one is about to."""
        with self._lock:
            if self._claims is not None:
                with self._claims.alone(MANIFEST_CLAIM):
                    yield
            else:
                with Claims(self.directory) as claims, claims.alone(MANIFEST_CLAIM):
                    yield

    def register(self, *names: str) -> None:
        """Take the checksums of files and folders that were written beside the chunks.

        Raises:
            WriteError: if the manifest cannot be written.
        """
        paths = [path for name in names for path in self._files(name)]
        found = dict(zip(self._relative(paths), map(sha256, paths), strict=True))

        def change(manifest: dict[str, Any]) -> None:
            kept = manifest["files"].items()
            old = {k: v for k, v in kept if not k.startswith(tuple(f"{n}/" for n in names))}
            manifest["files"] = old | found

        self.update(change)

    def _enter_found_chunks(self) -> None:
        """Enter chunks into the manifest that were committed before it was, or that it forgot."""
        for row in self.manifest["chunks"]:
            index = row["index"]
            if row["state"] == "missing" and self.damage(index) is None:
                path = self._chunk_path(index)
                width = identity_of(path)["width"]
                self._new_rows[index] = {"state": "done", "sha256": sha256(path), "width": width}
        if self._new_rows:
            self.update()

    def _identity(self, index: int, width: int) -> dict[str, Any]:
        return {
            "config_sha256": self.manifest["config_sha256"],
            "chunk": index,
            "width": width,
        }

    def _files(self, name: str) -> list[Path]:
        """A file, or the files in a folder, that are there."""
        top = self.directory / name
        return sorted(path for path in (top, *top.rglob("*")) if path.is_file())

    def _relative(self, paths: list[Path]) -> list[str]:
        return [path.relative_to(self.directory).as_posix() for path in paths]

    def _chunk_path(self, index: int) -> Path:
        return self.directory / "chunks" / f"{index:05d}.npz"


def _is_config(directory: Path, experiment: Experiment) -> bool:
    try:
        return read_config(directory).fingerprint() == experiment.fingerprint()
    except StoreError:
        return False


__all__ = ["Store", "StoreError", "WriteError"]
