"""The programs of a sweep, and what runs them."""
