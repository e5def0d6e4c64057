"""Timings side by side, each a ratio within one run."""
