"""Plateaus of learning from small weights."""
