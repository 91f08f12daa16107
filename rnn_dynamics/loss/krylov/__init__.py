"""Gradients in Krylov bases: which implementation runs, JAX alone, and the kernels."""
