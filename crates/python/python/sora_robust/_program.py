"""The program `sora`."""

import sys

from . import _native


def main() -> None:
    """Runs the program with the words of the command line."""
    sys.exit(_native.program(["sora", *sys.argv[1:]]))
