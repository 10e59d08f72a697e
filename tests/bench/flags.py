"""What the flags of all benchmarks have in common."""

import argparse
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def parser_of(page):
    """A parser whose help is the first paragraph of a module's docstring, with the flag --build."""
    parser = argparse.ArgumentParser(description=page.split("\n\n")[0])
    parser.add_argument("--build", default=str(ROOT / "build"), help="build folder (build)")
    return parser
