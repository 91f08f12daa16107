"""Theories of wide networks."""
