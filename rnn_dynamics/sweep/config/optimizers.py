"""The optimisers that a config may name, and their own arguments. Neither JAX nor optax is needed.

A table and not a look at optax, so that a config error answers at once; a test compares the two.
"""

from typing import Any, NamedTuple

from pydantic import ValidationError, ValidationInfo
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_core.core_schema import with_info_plain_validator_function

from rnn_dynamics.sweep.config.fields import Number, show
from rnn_dynamics.sweep.config.hints import nearest


class Arguments(NamedTuple):
    """The arguments of an optimiser besides its learning rate: real numbers, and flags."""

    numbers: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


_MOMENTS = ("b1", "b2", "eps")
_ROOTED = (*_MOMENTS, "eps_root")
_DECAYED = (*_ROOTED, "weight_decay")
_NESTEROV = ("nesterov",)

OPTIMIZERS = {
    "adabelief": Arguments(_ROOTED, _NESTEROV),
    "adadelta": Arguments(("rho", "eps", "weight_decay")),
    "adagrad": Arguments(("initial_accumulator_value", "eps")),
    "adam": Arguments(_ROOTED, _NESTEROV),
    "adamax": Arguments(_MOMENTS),
    "adamaxw": Arguments((*_MOMENTS, "weight_decay")),
    "adamw": Arguments(_DECAYED, _NESTEROV),
    "adan": Arguments((*_DECAYED, "b3")),
    "amsgrad": Arguments(_ROOTED),
    "fromage": Arguments(("min_norm",)),
    "lamb": Arguments(_DECAYED),
    "lars": Arguments(("weight_decay", "trust_coefficient", "eps", "momentum"), _NESTEROV),
    "lion": Arguments(("b1", "b2", "weight_decay")),
    "nadam": Arguments(_ROOTED, _NESTEROV),
    "nadamw": Arguments(_DECAYED, _NESTEROV),
    "novograd": Arguments(_DECAYED),
    "optimistic_gradient_descent": Arguments(("alpha", "beta")),
    "radam": Arguments((*_ROOTED, "threshold"), _NESTEROV),
    "rmsprop": Arguments(
        ("decay", "eps", "initial_scale", "momentum"),
        ("eps_in_sqrt", "centered", "nesterov", "bias_correction"),
    ),
    "rprop": Arguments(("eta_minus", "eta_plus", "min_step_size", "max_step_size")),
    "sgd": Arguments(("momentum",), _NESTEROV),
    "sign_sgd": Arguments(),
    "sm3": Arguments(("momentum",)),
    "yogi": Arguments(_MOMENTS),
}
ARGUMENTS = {name: None for known in OPTIMIZERS.values() for name in (*known.numbers, *known.flags)}
UNSCHEDULED = ("rprop",)  # its learning rate is that of the first step, later ones are its own


def has_weight_decay(optimizer: str) -> bool:
    """Whether an optimiser has a weight decay of its own."""
    return "weight_decay" in OPTIMIZERS[optimizer].numbers


class OptimizerArguments:
    """A key that is a table of the arguments of the optimiser named at the key `optimizer` before
    it.
    """

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> Any:
        return with_info_plain_validator_function(self.check)

    def check(self, table: Any, info: ValidationInfo) -> dict[str, Any]:
        """The table with checked values, or an error for each of its problems."""
        if not isinstance(table, dict):
            raise PydanticCustomError("dict_type", "must be a table")
        if "optimizer" not in info.data:
            return {}  # what is named there is an error of its own
        optimizer, checked, problems = info.data["optimizer"], {}, []
        for name, value in table.items():
            try:
                checked[name] = _check_argument(optimizer, name, value)
            except ValueError as error:
                detail = PydanticCustomError("argument", "{problem}", {"problem": str(error)})
                problems.append(InitErrorDetails(type=detail, loc=(name,), input=value))
        if problems:
            raise ValidationError.from_exception_data("optimizer_arguments", problems)
        return checked


def _check_argument(optimizer: str, name: str, value: Any) -> Any:
    known = OPTIMIZERS[optimizer]
    if name in known.numbers:
        return Number(minimum=0).check(value)
    if name in known.flags:
        if not isinstance(value, bool):
            raise ValueError(f"must be true or false, but is {show(value)}")
        return value
    if name == "learning_rate":
        raise ValueError("must be absent, as `learning.learning_rate` is given beside it")
    near = nearest(name, (*known.numbers, *known.flags), cutoff=0.0)
    hint = f" (the nearest known one is `{near}`)" if near else ", which takes no arguments"
    raise ValueError(f"is unknown to {optimizer!r}{hint}")
