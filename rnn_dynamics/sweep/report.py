"""What there is to know of a run: progress, failures, provenance, and whether every byte is as it was written."""

from typing import Any

import numpy as np

from rnn_dynamics.learning import StopReason
from rnn_dynamics.sweep.run import Run


def _origin(start: dict[str, Any] | None) -> list[str]:
    if start is None:
        return []
    return [f"start       {start['directory']}, record {start['record']}, sha256 {start['sha256']}"]


def report(run: Run) -> tuple[str, bool]:
    """A text for people, and whether nothing failed and nothing is damaged."""
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
    problems = run.store.result_damages()
    lines.extend(f"  results.zarr: {problem}" for problem in problems)
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
    lines += [
        f"versions    {versions}",
        f"commit      {provenance['git_commit'] or 'unknown'}",
        f"device      {provenance['device']['kind']} ({provenance['device']['platform']})",
        f"precision   {run.experiment.compute.dtype}, matmul {provenance['matmul_precision']}",
        *_origin(provenance.get("warm_start")),
        f"started     {provenance['started']} by {' '.join(provenance['command'])}",
        f"timings     {provenance['timings']}",
        f"config      sha256 {provenance['config_sha256']}",
    ]
    return "\n".join(lines), intact and not problems and not failed


def _stopped(run: Run) -> list[str]:
    """How many members came to rest before the last record, by criterion."""
    if "stop_reason" not in run.dataset:
        return []
    reasons = run.dataset["stop_reason"].to_numpy()
    counts = {reason.name: int(np.sum(reasons == reason)) for reason in StopReason if reason}
    told = ", ".join(f"{count} by {name}" for name, count in counts.items() if count)
    return [f"stopped     {told}"] if told else []
