"""What a config would run: members, groups, chunks, memory and time."""
