"""What this package costs beside packages that can be installed, on equal work in one run; see `__main__`."""
