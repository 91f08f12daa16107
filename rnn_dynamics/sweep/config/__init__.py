"""Configs: their schema, their validation, and how they are loaded."""
