"""Theory beside simulation: errors, tables and figures. The room itself is callable: `rnn_dynamics.overlay(run)`."""

import sys
from types import ModuleType
from typing import Any

from rnn_dynamics.overlay import figures as plot
from rnn_dynamics.overlay.compare import error_table, format_table, overlay, save_table

__all__ = ["error_table", "format_table", "overlay", "save_table"]


class _Room(ModuleType):
    """Python binds `rnn_dynamics.overlay` to this package when it is imported, and the public function has the same name."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return overlay(*arguments, **options)


sys.modules[__name__].__class__ = _Room
