"""The program `sora`."""

import sys

from . import _native


def main() -> None:
    """Runs the program on the command line's words."""
    sys.exit(_native.program(["sora", *sys.argv[1:]]))
