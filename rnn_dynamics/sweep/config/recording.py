"""What of a run is kept on disk: which observables, and at which records the weights. JAX is not
needed.
"""

from typing import Annotated, Any

from pydantic import AfterValidator
from pydantic_core.core_schema import no_info_plain_validator_function

from rnn_dynamics.sweep.config.fields import Choice, first_repeated, show
from rnn_dynamics.sweep.config.hints import nearest

SCALARS = (
    *("loss", "gradient_norm", "gradient_error", "weight_norm", "weight_change"),
    *("relative_change", "input_norm", "output_norm", "overlap", "conserved_drift"),
    "num_gradients",
)  # one number per record
SPECTRA = ("eigenvalues", "residues")  # one complex number per record and unit
RESPONSES = "impulse_responses"  # three variables: initial, final and target
MOST_RECORDS = 1_000_000  # of a member
OBSERVABLES = (*SCALARS, *SPECTRA, RESPONSES)


def _unrepeated(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if (twice := first_repeated(values)) is not None:
        raise ValueError(f"must not repeat an entry, but has {twice!r} twice")
    return values


ObservableNames = Annotated[
    tuple[Annotated[str, Choice(*OBSERVABLES)], ...], AfterValidator(_unrepeated)
]


class Weights:
    """A key that says at which records weights are saved: a word, or a list of records, negative
    ones from the end.
    """

    WORDS = ("none", "final", "all")

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> Any:
        return no_info_plain_validator_function(self.check)

    def check(self, value: Any) -> Any:
        """The word or the records as a tuple, or a ValueError that says what they must be."""
        if isinstance(value, str) and value in self.WORDS:
            return value
        words = ", ".join(repr(word) for word in self.WORDS)
        if not isinstance(value, list | tuple):
            near = nearest(value, self.WORDS) if isinstance(value, str) else None
            hint = f" (did you mean {near!r}?)" if near else ""
            raise ValueError(f"must be {words} or a list of records, but is {show(value)}{hint}")
        for item in value:
            if isinstance(item, bool) or not isinstance(item, int):
                raise ValueError(f"must hold whole numbers of records, but has {show(item)}")
            if not -MOST_RECORDS <= item < MOST_RECORDS:
                raise ValueError(
                    f"must hold records from {-MOST_RECORDS} to {MOST_RECORDS - 1}, but has "
                    f"{show(item)}"
                )
        return _unrepeated(tuple(value))


def saved_records(weights: str | tuple[int, ...], num_records: int) -> tuple[int, ...]:
    """The records at which weights are saved, increasing; of a list those that there are."""
    if weights == "none":
        return ()
    if weights == "all":
        return tuple(range(num_records))
    wanted = (-1,) if isinstance(weights, str) else weights
    there = {record % num_records for record in wanted if -num_records <= record < num_records}
    return tuple(sorted(there))
