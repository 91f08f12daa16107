"""Theory beside simulation: errors, tables and figures. The room itself is callable:
`rnn_dynamics.overlay(run)`.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from rnn_dynamics.overlay.compare import error_table, format_table, overlay, save_table

if TYPE_CHECKING:
    from rnn_dynamics.overlay import figures as plot

__all__ = ["error_table", "format_table", "overlay", "plot", "save_table"]


class _Room(ModuleType):
    """Python binds `rnn_dynamics.overlay` to this package when it is imported, and the public
    function has the same name.
    """

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return overlay(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        """The figures, without which there is no need of matplotlib."""
        if name != "plot":
            raise AttributeError(f"Module `{__name__}` has no name `{name}`.")
        return importlib.import_module("rnn_dynamics.overlay.figures")


sys.modules[__name__].__class__ = _Room
