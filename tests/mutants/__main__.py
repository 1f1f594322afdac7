"""`python -m tests.mutants [--jobs 2]`: plant every fault and print which are caught."""

from __future__ import annotations

import argparse
import sys

from .run import report

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Plant every fault of the catalogue.")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    sys.exit(report(parser.parse_args().jobs))
