"""Tests mirror the package. A package themselves: a dependency installs another `tests`, which would win."""
