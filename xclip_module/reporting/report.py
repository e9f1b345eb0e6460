"""The command that makes one page of several runs: `python -m xclip_module.reporting.report RUN RUN [RUN …]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from xclip_module.errors import UserError
from xclip_module.reporting.comparison import write_comparison


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes comparison.html and comparison.csv of several run folders; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m xclip_module.reporting.report", description=main.__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders; the others are compared with the first one")
    parser.add_argument("--output", type=Path, default=Path(), help="folder for both files")
    chosen = parser.parse_args(arguments)
    if len(chosen.runs) < 2:
        parser.error("a comparison takes two run folders or more")
    try:
        page = write_comparison(chosen.runs, chosen.output)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stdout.write(f"{page}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
