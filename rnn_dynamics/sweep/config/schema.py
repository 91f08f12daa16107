"""The config of an experiment: its keys, their ranges, and all of its problems at once.

Nothing here imports JAX, so that a config error answers at once.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Tag, ValidationError, field_validator, model_validator

from rnn_dynamics.sweep.config.fields import Choice, ConfigModel, Number, Text, Values, tagged_by
from rnn_dynamics.sweep.config.learning import GradientDescentTable, GradientFlowTable
from rnn_dynamics.sweep.config.problems import ConfigError, sentences
from rnn_dynamics.sweep.config.recording import (
    MOST_RECORDS,
    OBSERVABLES,
    ObservableNames,
    Weights,
    saved_records,
)

THEORIES = (
    *("single_outlier", "conjugate_pair", "word_subspace"),
    *("infinite_width", "readout_only", "population"),
)


TIED = "weight_scale"


class Decay(Number):
    """A positive number; 0, of a perfect integrator, is for a finite horizon."""

    def _check_one(self, value: Any) -> float | int:
        try:
            return super()._check_one(value)
        except ValueError as error:
            raise ValueError(str(error).replace("positive or zero", "positive")) from None


class LeakyIntegrator(ConfigModel):
    """k*(t) = exp(-decay t)."""

    kind: Literal["leaky_integrator"] = "leaky_integrator"
    decay: Annotated[Values, Decay(minimum=0)]


class DampedOscillator(ConfigModel):
    """k*(t) = exp(-decay t) cos(frequency t + phase)."""

    kind: Literal["damped_oscillator"] = "damped_oscillator"
    decay: Annotated[Values, Decay(minimum=0)]
    frequency: Annotated[Values, Number()]
    phase: Annotated[Values, Number()] = 0.0


class Mode(ConfigModel):
    """amplitude exp(-decay t) cos(frequency t + phase)."""

    decay: Annotated[Values, Decay(minimum=0)]
    frequency: Annotated[Values, Number()] = 0.0
    phase: Annotated[Values, Number()] = 0.0
    amplitude: Annotated[Values, Number()] = 1.0


class Modes(ConfigModel):
    """A sum of modes, given as [[target.modes]] tables."""

    kind: Literal["modes"] = "modes"
    modes: tuple[Mode, ...]

    # not `min_length`, which does not count modes that are wrong
    @field_validator("modes")
    @classmethod
    def _some(cls, modes: tuple[Mode, ...]) -> tuple[Mode, ...]:
        if not modes:
            raise ValueError("must hold at least one entry, but is empty")
        return modes


class Scale(Number):
    """A number, or "weight_scale" for that of W."""

    def check(self, value: Any) -> Any:
        return value if value == TIED else super().check(value)


class Network(ConfigModel):
    """Initial networks: W = weight_scale G/√N, u = input_scale g/√N, v = output_scale g'/√N.

    The scales of u and v may be "weight_scale": then they are that of W, on its axis too.
    With `warm_start` they are those that the run in that directory saved at `warm_start_record`
    (the last, if absent), and the scales say what these were drawn with.
    """

    num_units: Annotated[Values, Number(integer=True, minimum=1, maximum=16384)]
    weight_scale: Annotated[Values, Number(minimum=0)]
    input_scale: Annotated[Any, Scale(minimum=0)] = 1.0
    output_scale: Annotated[Any, Scale(minimum=0)] = 1.0
    overlap: Annotated[Values, Number(minimum=-1, maximum=1)] | None = None
    num_seeds: Annotated[int, Number(integer=True, minimum=1, maximum=10_000_000, axis=False)] = 1
    warm_start: Annotated[str, Text()] | None = None
    warm_start_record: (
        Annotated[
            int,
            Number(integer=True, minimum=-MOST_RECORDS, maximum=MOST_RECORDS - 1, axis=False),
        ]
        | None
    ) = None


class Record(ConfigModel):
    """When to record: `every` so many steps (descent) or so much learning time (flow), or `num`
    records; and what to keep.
    """

    every: Annotated[float, Number(positive=True, axis=False)] | None = None
    num: (
        Annotated[int, Number(integer=True, minimum=2, maximum=MOST_RECORDS, axis=False)] | None
    ) = None
    spacing: Annotated[str, Choice("linear", "log")] = "linear"
    observables: ObservableNames | None = None
    weights: Annotated[Any, Weights()] = "none"

    @model_validator(mode="after")
    def _one_way(self) -> "Record":
        if self.every is not None and self.num is not None:
            raise ValueError("must have either `every` or `num`, but has both")
        if self.every is not None and self.spacing == "log":
            raise ValueError("must have `num` and not `every` for log spacing")
        return self

    def keeps(self, name: str) -> bool:
        """Whether a variable is kept on disk; the loss, and what is no observable, like the status,
        always is.
        """
        chosen = self.observables is None or name == "loss" or name in self.observables
        return chosen or name not in OBSERVABLES

    def weights_at(self, num_records: int) -> tuple[int, ...]:
        """The records at which weights are saved, of so many records in all."""
        return saved_records(self.weights, num_records)


class WordSubspace(ConfigModel):
    """Options of the word subspace."""

    max_length: Annotated[Values, Number(integer=True, minimum=0, maximum=8)] = 2


class InfiniteWidth(ConfigModel):
    """Options of the network of infinite width."""

    max_length: Annotated[Values, Number(integer=True, minimum=0, maximum=8)] = 3


class Theory(ConfigModel):
    """Theories to lay over the simulation."""

    models: tuple[Annotated[str, Choice(*THEORIES)], ...] = ()
    word_subspace: WordSubspace = WordSubspace()
    infinite_width: InfiniteWidth = InfiniteWidth()


class ChunkSize(Number):
    """A number of members of at least 2, or "auto"."""

    def check(self, value: Any) -> Any:
        return value if value == "auto" else super().check(value)


class Compute(ConfigModel):
    """How the sweep is computed; all of it is part of the run's identity."""

    dtype: Annotated[str, Choice("float64", "float32")] = "float64"
    chunk_size: Annotated[
        Any, ChunkSize(integer=True, minimum=2, maximum=1_000_000, axis=False)
    ] = "auto"
    seed: Annotated[int, Number(integer=True, minimum=0, maximum=2**31 - 1, axis=False)] = 0


Target = Annotated[
    Annotated[LeakyIntegrator, Tag("leaky_integrator")]
    | Annotated[DampedOscillator, Tag("damped_oscillator")]
    | Annotated[Modes, Tag("modes")],
    tagged_by("kind"),
]
Learning = Annotated[
    Annotated[GradientDescentTable, Tag("gradient_descent")]
    | Annotated[GradientFlowTable, Tag("gradient_flow")],
    tagged_by("method", "gradient_descent"),
]


class Experiment(ConfigModel):
    """A whole config, checked: each key, and what no key can tell by itself.

    Raises:
        ConfigError: with every problem.
    """

    target: Target
    network: Network
    learning: Learning
    record: Record = Record()
    theory: Theory = Theory()
    compute: Compute = Compute()

    def __init__(self, /, **tables: Any) -> None:
        try:
            super().__init__(**tables)
        except ValidationError as error:
            raise ConfigError("The config", sentences(type(self), error)) from None
        self.check()

    def check(self) -> None:
        """Refuse keys that contradict each other, as a copy with changes may have.

        Raises:
            ConfigError: with every problem.
        """
        from rnn_dynamics.sweep.config.validation import contradictions  # which knows this class

        if problems := contradictions(self):
            raise ConfigError("The config", problems)

    @property
    def numbers(self) -> dict[str, Any]:
        """Every numeric key of target, network and learning that may be an axis, by dotted name."""
        tables = {
            "target": self.target.model_dump(),
            "network": self.network.model_dump(exclude={"num_seeds", "warm_start_record"}),
            "learning": self.learning.model_dump(exclude={"rtol", "atol", "max_steps"}),
        }
        return {
            key: value
            for key, value in _flatten(tables, "")
            if value is not None and not isinstance(value, str | bool)
        }

    @property
    def axes(self) -> dict[str, tuple[float, ...]]:
        """The sweep axes by dotted key, in the order of the config's sections."""
        return {key: value for key, value in self.numbers.items() if isinstance(value, tuple)}

    @property
    def dimensions(self) -> dict[str, str]:
        """The name of each axis as a dimension of the dataset: the last part of its key if that is
        unique.
        """
        short = {key: key.rsplit(".", 1)[-1] for key in self.axes}
        for key in short:
            if key.startswith("learning.rates."):
                short[key] = "rate_" + short[key]
            elif key.startswith("learning.stop."):
                short[key] = "stop_" + short[key]
            elif key == "network.overlap":
                short[key] = "initial_overlap"  # `overlap` is recorded
            elif key == "learning.train_time":
                short[key] = "duration"  # `train_time` is the time of each record
            elif key == "learning.optimizer_arguments.decay":
                short[key] = "optimizer_decay"  # `decay` is the target's
            elif key.startswith("target.modes."):
                short[key] = "_".join(key.split(".")[2:][::-1])
        return short

    @property
    def num_members(self) -> int:
        """Number of networks: the product of the axes' lengths and the number of seeds."""
        size = self.network.num_seeds
        for values in self.axes.values():
            size *= len(values)
        return size

    def tables(self) -> dict[str, Any]:
        """The config as nested dictionaries, defaults filled in and axes expanded, without absent
        keys.
        """
        return json.loads(self.model_dump_json(exclude_none=True))

    def fingerprint(self) -> str:
        """sha256 of the resolved config."""
        text = json.dumps(self.tables(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def differences(self, other: "Experiment") -> list[str]:
        """The dotted keys in which two configs differ."""
        mine, theirs = (dict(_flatten(e.tables(), "")) for e in (self, other))
        keys = itertools.chain(mine, theirs)
        return [key for key in dict.fromkeys(keys) if mine.get(key) != theirs.get(key)]


def _flatten(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Leaves of nested tables by dotted key; a list of tables is numbered, a list of values is a
    leaf.
    """
    if isinstance(node, dict):
        items: Any = node.items()
    elif isinstance(node, list | tuple) and node and isinstance(node[0], dict):
        items = enumerate(node)
    else:
        yield prefix, node
        return
    for key, value in items:
        yield from _flatten(value, f"{prefix}.{key}" if prefix else str(key))
