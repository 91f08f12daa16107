"""What there is to know of a run: progress, failures, provenance, and whether every byte is as it
was written.
"""

from typing import Any

import numpy as np

from rnn_dynamics.learning import StopReason
from rnn_dynamics.sweep.run import Run
from rnn_dynamics.sweep.storage.gather import flags
from rnn_dynamics.sweep.storage.outputs import file_damages, has_results
from rnn_dynamics.sweep.storage.provenance import SURROUNDINGS, changes


def _origin(start: dict[str, Any] | None) -> list[str]:
    if start is None:
        return []
    return [f"start       {start['directory']}, record {start['record']}, sha256 {start['sha256']}"]


def report(run: Run) -> tuple[str, bool]:
    """A text for people, and whether nothing failed, nothing is damaged and nothing is missing."""
    damages = run.store.damages()
    intact = not any(run.store.is_done(index) for index in damages)
    missing = sum(len(c.members) for c in run.plan.chunks if c.index in damages)
    lines = [
        f"directory   {run.directory}",
        f"members     {run.plan.num_members - missing} of {run.plan.num_members} done",
        f"chunks      {len(run.plan.chunks) - len(damages)} of {len(run.plan.chunks)} done",
    ]
    for index, problem in damages.items():
        lines.append(f"  chunk {index}: {problem}")
    problems = file_damages(run.store)
    if not has_results(run.store):
        problems.append("`results.zarr` is not whole: run the same command again")
    lines.extend(f"  {problem}" for problem in problems)
    failed: dict[str, str] = {}
    if intact:
        failed = run.failed
        lines.append(f"failed      {len(failed)} members")
        lines.extend(f"  {name}: {status}" for name, status in failed.items())
        lines.extend(_stopped(run))
    if not problems and intact:
        lines.append("checksums   all match")
    provenance = run.provenance
    versions = ", ".join(f"{k} {v}" for k, v in provenance["versions"].items())
    device = provenance["device"]
    lines += [
        f"versions    {versions}",
        f"commit      {provenance['git_commit'] or 'unknown'}",
        f"device      {device['count']} x {device['kind']} ({device['platform']})",
        f"precision   {provenance['dtype']}, matmul {provenance['matmul_precision']}",
        f"random      {provenance['prng']}, seed {run.experiment.compute.seed}",
        *_origin(provenance.get("warm_start")),
        f"started     {provenance['started']} by {' '.join(provenance['command'])}",
        f"timings     {', '.join(f'{k} {v:g}' for k, v in provenance['timings'].items())}",
        *_sessions(provenance["sessions"]),
        *_widths(run),
        f"config      sha256 {provenance['config_sha256']}",
    ]
    return "\n".join(lines), intact and not problems and not failed


def _sessions(sessions: list[dict[str, Any]]) -> list[str]:
    """Every process that computed, and in what its surroundings differ from the first one's or
    changed on the way.
    """
    lines = [f"sessions    {len(sessions)}"]
    for one in sessions:
        what = f"{one['chunks']} chunks" if "chunks" in one else "not ended, or killed"
        if "programs" in one:
            what += ", programs " + ", ".join(f"{n} {how}" for how, n in one["programs"].items())
        if "kernel" in one:
            what += ", gradients by a kernel" if one["kernel"] else ", gradients by JAX alone"
        lines.append(f"  {one['started']} on {one['host']}, shard {one['shard']}: {what}")
        names = [name for name in SURROUNDINGS if name in one and name in sessions[0]]
        known = ({name: of[name] for name in names} for of in (sessions[0], one))
        different = [*changes(*known), *one.get("changed", [])]
        lines.extend(f"    changed: {text}" for text in different)
    return lines


def _widths(run: Run) -> list[str]:
    """The compile groups whose members were trained fewer at once than a chunk holds, because
    memory was short.
    """
    widths = run.store.manifest["widths"].items()
    return [f"width       {width} members at once in group {group}" for group, width in widths]


def _stopped(run: Run) -> list[str]:
    """How many members came to rest before the last record, by criterion."""
    reasons = flags(run.plan, run.store, "stop_reason")
    counts = {reason.name: int(np.sum(reasons == reason)) for reason in StopReason if reason}
    told = ", ".join(f"{count} by {name}" for name, count in counts.items() if count)
    return [f"stopped     {told}"] if told else []
