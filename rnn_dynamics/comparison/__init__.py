"""Theory beside simulation: errors of every theory, as a dataset and as a table."""

from rnn_dynamics.comparison.errors import error_table, format_table, overlay, save_table

__all__ = ["error_table", "format_table", "overlay", "save_table"]
