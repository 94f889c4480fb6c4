"""`python -m benchmarks [ops | models | table | plot]`; without a word, all of it."""

from __future__ import annotations

import sys

from . import command

if __name__ == "__main__":
    sys.exit(command.main(sys.argv[1:]))
