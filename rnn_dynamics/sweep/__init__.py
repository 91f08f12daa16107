"""Sweeps: config, plan, compiled programs, and runs on disk."""
