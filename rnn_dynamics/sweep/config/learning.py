"""The [learning] table of a config: method, optimiser, schedule, loss, and when to stop. JAX is not
needed.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, Tag, model_validator

from rnn_dynamics.sweep.config.fields import Choice, ConfigModel, Number, Values, tagged_by
from rnn_dynamics.sweep.config.optimizers import OPTIMIZERS, OptimizerArguments
from rnn_dynamics.sweep.config.recording import MOST_RECORDS

Steps = Annotated[Values, Number(integer=True, minimum=1, maximum=2_000_000_000)]
Factor = Annotated[Values, Number(minimum=0)]


class Constant(ConfigModel):
    """The learning rate itself at every step."""

    kind: Literal["constant"] = "constant"


class Linear(ConfigModel):
    """From 1 to `end_factor` times the learning rate on a line over `steps` steps, by default all;
    then constant.
    """

    kind: Literal["linear"] = "linear"
    end_factor: Factor = 0.0
    steps: Steps | None = None


class Cosine(ConfigModel):
    """From 1 to `end_factor` times the learning rate on half a period of a cosine over `steps`
    steps, by default all; then constant.
    """

    kind: Literal["cosine"] = "cosine"
    end_factor: Factor = 0.0
    steps: Steps | None = None


class Exponential(ConfigModel):
    """The learning rate times `factor` every `steps` steps, by default all, smoothly."""

    kind: Literal["exponential"] = "exponential"
    factor: Annotated[Values, Number(positive=True)]
    steps: Steps | None = None


class WarmupCosine(ConfigModel):
    """From 0 to the learning rate on a line over `warmup_steps` steps, then a cosine to
    `end_factor` times it up to step `steps`.
    """

    kind: Literal["warmup_cosine"] = "warmup_cosine"
    warmup_steps: Annotated[Values, Number(integer=True, minimum=0, maximum=2_000_000_000)]
    end_factor: Factor = 0.0
    steps: Steps | None = None


Schedule = Annotated[
    Annotated[Constant, Tag("constant")]
    | Annotated[Linear, Tag("linear")]
    | Annotated[Cosine, Tag("cosine")]
    | Annotated[Exponential, Tag("exponential")]
    | Annotated[WarmupCosine, Tag("warmup_cosine")],
    tagged_by("kind"),
]


class RatesTable(ConfigModel):
    """Relative rates of the parameters; 0 freezes."""

    W: Annotated[Values, Number(minimum=0)] = 1.0
    u: Annotated[Values, Number(minimum=0)] = 1.0
    v: Annotated[Values, Number(minimum=0)] = 1.0


class StopTable(ConfigModel):
    """Criteria to stop at a record before the last, each member by itself; `train_time` is that of
    a descent.
    """

    loss: Annotated[Values, Number(positive=True)] | None = None
    train_time: Annotated[Values, Number(positive=True)] | None = None
    plateau: Annotated[Values, Number(positive=True, maximum=0.999)] | None = None
    patience: Annotated[Values, Number(integer=True, minimum=1, maximum=MOST_RECORDS)] = 3


class LearningTable(ConfigModel):
    """The loss and what both methods have: a horizon in leak time constants and a time step, in
    discrete time.
    """

    loss: Annotated[str, Choice("population", "sampled")] = "population"
    horizon: Annotated[Values, Number(positive=True, infinite=True)] = math.inf
    weighting: Annotated[str, Choice("uniform", "time_averaged")]
    time_step: Annotated[Values, Number(positive=True)] | None = None
    batch_size: Annotated[Values, Number(integer=True, minimum=1, maximum=1_000_000)] | None = None
    rates: RatesTable = RatesTable()
    stop: StopTable = StopTable()

    @model_validator(mode="before")
    @classmethod
    def _own_weighting(cls, table: Any) -> Any:
        """Sampled noise is averaged over time unless the config says otherwise."""
        if not isinstance(table, dict) or "weighting" in table:
            return table
        own = "time_averaged" if table.get("loss") == "sampled" else "uniform"
        return table | {"weighting": own}


class GradientDescentTable(LearningTable):
    """Steps of an optax optimiser; weights decay by learning rate × `weight_decay` per step, beside
    its update.
    """

    method: Literal["gradient_descent"] = "gradient_descent"
    optimizer: Annotated[str, Choice(*OPTIMIZERS)] = "sgd"
    optimizer_arguments: Annotated[dict[str, Any], OptimizerArguments()] = Field(
        default_factory=dict
    )
    learning_rate: Annotated[Values, Number(positive=True)]
    schedule: Schedule = Constant()
    clip_norm: Annotated[Values, Number(positive=True)] | None = None
    weight_decay: Annotated[Values, Number(minimum=0)] | None = None
    num_steps: Annotated[Values, Number(integer=True, minimum=1, maximum=2_000_000_000)]


class GradientFlowTable(LearningTable):
    """Gradient flow to a learning time, by an explicit method, or in turns by this and an
    exponential one, each where it is better.
    """

    method: Literal["gradient_flow"] = "gradient_flow"
    train_time: Annotated[Values, Number(positive=True)]
    solver: Annotated[str, Choice("auto", "tsit5")] = "auto"
    rtol: Annotated[float, Number(positive=True, maximum=0.1, axis=False)] | None = None
    atol: Annotated[float, Number(positive=True, axis=False)] | None = None
    max_steps: Annotated[
        int, Number(integer=True, minimum=1, maximum=2_000_000_000, axis=False)
    ] = 1_000_000
