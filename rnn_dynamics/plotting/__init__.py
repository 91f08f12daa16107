"""Figures of runs: theory laid over simulation."""
