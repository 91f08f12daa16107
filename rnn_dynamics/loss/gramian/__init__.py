"""Energies of linear systems by their Gramians, in JAX alone."""
