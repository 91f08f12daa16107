"""A run on disk. Nothing committed is lost, nothing damaged is used, nothing foreign is touched.

    DIR/config.toml           the resolved config
    DIR/manifest.json         schema, config hash, chunk table with sha256, provenance, timings,
                              checksums of the files below
    DIR/chunks/00000.npz      the results of a chunk, the config's hash, its layout, its sha256
    DIR/chunks/*.progress     a chunk under way, to go on from; deleted when it is committed
    DIR/results.zarr          the whole dataset for other tools, written when the run is complete
    DIR/overlay.csv, figures/

The directory is created, resumed and repaired under the lock of the manifest. Whatever is damaged
is set aside then, so that a chunk either has no file or an intact one from then on. Where the
manifest lags behind the chunks, after a kill or beside other processes, the chunks are right.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rnn_dynamics.sweep.config.loading import to_toml
from rnn_dynamics.sweep.config.schema import Experiment
from rnn_dynamics.sweep.plan.plan import Plan
from rnn_dynamics.sweep.storage.files import (
    DamagedError,
    StoreError,
    WriteError,
    identity_of,
    in_the_way,
    is_sealed,
    obstacle,
    read_arrays,
    set_aside,
    sha256,
    write_arrays,
    write_bytes,
    write_json,
    writing,
)
from rnn_dynamics.sweep.storage.locks import MANIFEST as MANIFEST_CLAIM
from rnn_dynamics.sweep.storage.locks import Claims
from rnn_dynamics.sweep.storage.manifest import (
    CHUNKS,
    CONFIG,
    MANIFEST,
    DamagedManifestError,
    check_config,
    check_table,
    new_manifest,
    read_config,
    read_manifest,
)

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
        """Begin, resume or repair the run in a directory that `refuse_another` let pass.

        The caller has the lock of the manifest.

        Raises:
            StoreError: if it cannot be written, or has a file in a chunk's place that no run wrote.
        """
        experiment, new = layout.experiment, new_manifest(layout, provenance)
        try:
            manifest = read_manifest(directory)
        except DamagedManifestError:
            manifest = new
        if manifest["config_sha256"] != new["config_sha256"]:
            manifest = new
        check_table(directory, manifest, layout)
        store = cls(directory, experiment, manifest, claims)
        damaged = store._damaged_chunks()
        try:
            with writing(directory):
                if not _is_config(directory, experiment):
                    set_aside(directory / CONFIG)
                    write_bytes(directory / CONFIG, to_toml(experiment).encode())
                manifest["files"][CONFIG] = sha256(directory / CONFIG)
                store._chunk_path(0).parent.mkdir(exist_ok=True)
                for index in damaged:
                    set_aside(store._chunk_path(index))
                    manifest["chunks"][index] = new["chunks"][index]
                if manifest is new:
                    set_aside(directory / MANIFEST)
                for index, row in store._unlisted_chunks().items():
                    manifest["chunks"][index] |= row
                write_json(directory / MANIFEST, manifest)
        except WriteError as error:
            raise StoreError(str(error)) from error
        return store

    @classmethod
    def open(cls, directory: Path) -> "Store":
        """Open a run that exists, to read it.

        Raises:
            StoreError: if there is none, or its manifest or config is damaged or of an unknown
                schema.
        """
        manifest, experiment = read_manifest(directory), read_config(directory)
        check_config(directory, experiment, manifest)
        return cls(directory, experiment, manifest)

    def is_done(self, index: int) -> bool:
        """Whether a chunk was committed, intact or not."""
        row = self.manifest["chunks"][index]
        return row["state"] == "done" or os.path.lexists(self._chunk_path(index))

    def damages(self) -> dict[int, str]:
        """Every chunk that has to be computed, with the reason: not computed yet, lost, or not as
        written.
        """
        found = {index: self.damage(index) for index in range(len(self.manifest["chunks"]))}
        return {index: problem for index, problem in found.items() if problem is not None}

    def damage(self, index: int) -> str | None:
        """What is wrong with a chunk: None if it is committed and intact."""
        path, row = self._chunk_path(index), self.manifest["chunks"][index]
        problem = obstacle(path)
        if problem:
            return f"`{path.name}` {problem}"
        try:
            identity = identity_of(path)
        except FileNotFoundError:
            return f"`{path.name}` is lost" if row["state"] == "done" else "not computed yet"
        except OSError as error:
            return f"`{path.name}` cannot be read: {error.strerror}"
        except DamagedError:
            return f"`{path.name}` does not match its checksum"
        if identity.get("config_sha256") != self.manifest["config_sha256"]:
            return f"`{path.name}` belongs to a run of another config"
        if (found := identity.get("chunk")) != index:
            return f"`{path.name}` is {f'chunk {found}' if found is not None else 'no chunk'}"
        if identity.get("members") != row["members"]:
            return f"`{path.name}` has other members"
        if row["state"] == "done" and sha256(path) != row["sha256"]:
            return f"`{path.name}` does not match its checksum in the manifest"
        return None

    def commit(
        self, index: int, arrays: dict[str, np.ndarray], width: int, facts: dict[str, Any]
    ) -> None:
        """Write the results of a chunk, unless another process has committed them meanwhile.

        Raises:
            WriteError: if the disk is full or cannot be written.
            StoreError: if something else has come into the chunk's place.
        """
        path = self._chunk_path(index)
        with writing(self.directory):
            path.parent.mkdir(exist_ok=True)
            try:
                write_arrays(path, arrays, self._identity(index, width), replace=False)
            except FileExistsError:
                problem = self.damage(index)
                if problem:
                    raise in_the_way(path, problem) from None
            row = self._row_of(path)
        with self._lock:
            self._new_rows[index] = row | facts
            if time.monotonic() - self._saved > SECONDS_BETWEEN_MANIFESTS:
                self.update()

    def read(
        self, index: int, wanted: Callable[[str], bool] = lambda _: True
    ) -> dict[str, np.ndarray]:
        """The results of a committed chunk, those with a name that is wanted; the whole file is
        checked first.

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

    def update(
        self,
        change: Callable[[dict[str, Any]], None] = lambda _: None,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        """Change the manifest on disk, and do something more under its lock.

        Raises:
            WriteError: if it cannot be written.
            StoreError: if it is of another run.
        """
        with writing(self.directory), self.locks() as claims, claims.alone(MANIFEST_CLAIM):
            try:
                manifest = read_manifest(self.directory)
                check_config(self.directory, self.experiment, manifest)
            except DamagedManifestError:
                set_aside(self.directory / MANIFEST)
                manifest = self.manifest
            for index, row in self._new_rows.items():
                manifest["chunks"][index] |= row
            change(manifest)
            write_json(self.directory / MANIFEST, manifest)
            self.manifest, self._saved = manifest, time.monotonic()
            self._new_rows.clear()
            then()

    def enter_found_chunks(self) -> None:
        """Enter chunks into the manifest that are on disk but not in it, whoever committed them.

        Raises:
            WriteError: if the manifest cannot be written.
        """
        self.update()
        self._new_rows |= self._unlisted_chunks()
        if self._new_rows:
            self.update()

    @contextmanager
    def locks(self) -> Iterator[Claims]:
        """The locks of this process; other threads of it wait."""
        with self._lock:
            if self._claims is not None:
                yield self._claims
                return
            with Claims(self.directory) as self._claims:
                try:
                    yield self._claims
                finally:
                    self._claims = None

    def _damaged_chunks(self) -> list[int]:
        """The chunks with a damaged or lost file that a run wrote, or with something in its place.

        Raises:
            StoreError: if there is something that no run wrote.
        """
        damages = {index: text for index, text in self.damages().items() if self.is_done(index)}
        for index, problem in damages.items():
            path, listed = (
                self._chunk_path(index),
                self.manifest["chunks"][index]["state"] == "done",
            )
            if not (listed or (obstacle(path) is None and is_sealed(path))):
                raise in_the_way(path, problem)
        return list(damages)

    def _unlisted_chunks(self) -> dict[int, dict[str, Any]]:
        """The rows of intact chunks that the manifest does not have."""
        missing = [row["index"] for row in self.manifest["chunks"] if row["state"] == "missing"]
        return {i: self._row_of(self._chunk_path(i)) for i in missing if self.damage(i) is None}

    def _row_of(self, path: Path) -> dict[str, Any]:
        return {"state": "done", "sha256": sha256(path), "width": identity_of(path)["width"]}

    def _identity(self, index: int, width: int) -> dict[str, Any]:
        members = self.manifest["chunks"][index]["members"]
        config = self.manifest["config_sha256"]
        return {"config_sha256": config, "chunk": index, "width": width, "members": members}

    def _chunk_path(self, index: int) -> Path:
        return self.directory / CHUNKS / f"{index:05d}.npz"


def _is_config(directory: Path, experiment: Experiment) -> bool:
    try:
        return read_config(directory).fingerprint() == experiment.fingerprint()
    except StoreError:
        return False


__all__ = ["Store", "StoreError", "WriteError"]
