"""Tables of the config that say how the learning rate changes with the step. JAX is not needed."""

from typing import Annotated, Literal

from pydantic import Tag

from rnn_dynamics.sweep.axes import Number, Values
from rnn_dynamics.sweep.section import Section, told_by

Steps = Annotated[Values, Number(integer=True, minimum=1, maximum=2_000_000_000)]
Factor = Annotated[Values, Number(minimum=0)]


class Constant(Section):
    """The learning rate itself at every step."""

    kind: Literal["constant"] = "constant"


class Linear(Section):
    """From 1 to `end_factor` times the learning rate on a line over `steps` steps, by default all;
    then constant.
    """

    kind: Literal["linear"] = "linear"
    end_factor: Factor = 0.0
    steps: Steps | None = None


class Cosine(Section):
    """From 1 to `end_factor` times the learning rate on half a period of a cosine over `steps`
    steps, by default all; then constant.
    """

    kind: Literal["cosine"] = "cosine"
    end_factor: Factor = 0.0
    steps: Steps | None = None


class Exponential(Section):
    """The learning rate times `factor` every `steps` steps, by default all, smoothly."""

    kind: Literal["exponential"] = "exponential"
    factor: Annotated[Values, Number(positive=True)]
    steps: Steps | None = None


class WarmupCosine(Section):
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
    told_by("kind"),
]
