"""Files beside the chunks, each with its checksum in the manifest; temporary files."""

import os
import shutil
from pathlib import Path
from typing import Any

from rnn_dynamics.sweep.storage.files import (
    in_the_way,
    is_temporary,
    obstacle,
    set_aside,
    sha256,
    writing,
)
from rnn_dynamics.sweep.storage.manifest import CHUNKS, FIGURES, MANIFEST, RESULTS, TABLE, obstacles
from rnn_dynamics.sweep.storage.store import Store

SECONDS_UNTIL_OLD = 86_400.0  # without a change; then nobody is writing a file any more


def file_damages(store: Store) -> list[str]:
    """What is wrong with the files beside the chunks: lost, changed, added, or no files."""
    listed, found = store.manifest["files"], obstacles(store.directory)
    unlisted = {**_checksums(store, RESULTS), **_checksums(store, TABLE)}
    # systems leave hidden files in any folder
    visible = {name for name in unlisted if not name.rpartition("/")[2].startswith(".")}
    for name in sorted(set(listed) | visible):
        path = store.directory / name
        problem = obstacle(path)
        if name not in listed:
            found.append(f"`{name}` has no checksum: the run did not write it")
        elif problem:
            found.append(f"`{name}` {problem}")
        elif not path.exists():
            found.append(f"`{name}` is lost")
        elif sha256(path) != listed[name]:
            found.append(f"`{name}` is not as written")
    return list(dict.fromkeys(found))


def has_results(store: Store) -> bool:
    """Whether results.zarr is there, as it was written."""
    listed = any(name.startswith(f"{RESULTS}/") for name in store.manifest["files"])
    return listed and not any(text.startswith(f"`{RESULTS}") for text in file_damages(store))


def put(store: Store, partial: Path, name: str) -> None:
    """Enter the checksums of a file or folder that was written, and give it its name.

    What was there before is set aside if it is damaged.

    Raises:
        WriteError: if the disk is full or cannot be written.
        StoreError: if the run did not write what is there.
    """
    final, new = store.directory / name, _checksums(store, name, partial)
    present: dict[str, str] = {}

    def enter(manifest: dict[str, Any]) -> None:
        files = manifest["files"].items()
        listed = {k: v for k, v in files if k == name or k.startswith(f"{name}/")}
        present.update(_checksums(store, name))
        problem = obstacle(final, partial.is_dir())
        if not listed and (problem or (present and present != new)):
            raise in_the_way(final, problem or "the run did not write it")
        if problem or present not in ({}, listed, new):
            set_aside(final)
        manifest["files"] = {k: v for k, v in files if k not in listed} | new

    def place() -> None:
        if present != new:
            if final.is_dir():
                shutil.rmtree(final)
            partial.replace(final)

    store.update(enter, place)


def tidy(store: Store) -> None:
    """Delete what killed processes were writing; beside other processes what is old."""
    with writing(store.directory), store.locks() as locks, locks.only_process() as alone:
        now = (store.directory / MANIFEST).stat().st_mtime
        for folder in (store.directory, store.directory / CHUNKS, store.directory / FIGURES):
            for path in [path for path in folder.glob("*.partial*") if is_temporary(path.name)]:
                if not alone and now - _last_change(path) < SECONDS_UNTIL_OLD:
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def _checksums(store: Store, name: str, top: Path | None = None) -> dict[str, str]:
    """The sha256 of a file, or of the files in a folder, at its name or still beside it."""
    top = top or store.directory / name
    paths = sorted(path for path in (top, *top.rglob("*")) if os.path.lexists(path))
    names = [path.relative_to(top).as_posix() for path in paths]
    return {
        name if inside == "." else f"{name}/{inside}": sha256(path)
        for inside, path in zip(names, paths, strict=True)
        if obstacle(path) is None
    }


def _last_change(path: Path) -> float:
    """When a file, or anything in a folder, was last written."""
    found = [p.lstat().st_mtime for p in (path, *path.rglob("*")) if os.path.lexists(p)]
    return max(found, default=float("inf"))
