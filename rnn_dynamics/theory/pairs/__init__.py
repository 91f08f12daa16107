"""Theories of two eigenvalues."""
