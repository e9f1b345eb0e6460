"""`python -m xclip_module.datasets.cholec80 ROOT [--labels-only]`: does the copy hold what it should?"""

import sys
from pathlib import Path

import pandas as pd

from xclip_module.datasets.cholec80.check import check_cholec80
from xclip_module.errors import DataError, UserError


def main(arguments: list[str]) -> int:
    """Prints the check of a copy; 0 when everything fits, else the exit code of bad data."""
    roots = [word for word in arguments if not word.startswith("--")]
    if len(roots) != 1 or set(arguments) - {*roots, "--labels-only"}:
        sys.stderr.write("usage: python -m xclip_module.datasets.cholec80 ROOT [--labels-only]\n")
        return 2
    try:
        report = check_cholec80(Path(roots[0]), opens_videos="--labels-only" not in arguments)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    with pd.option_context("display.max_rows", None, "display.width", 120):
        sys.stdout.write(f"{report.videos.to_string(index=False)}\n\n{report.totals.to_string(index=False)}\n\n")
    sys.stdout.write("\n".join(report.misfits) + "\n" if report.misfits else "no misfits\n")
    return DataError.exit_code if report.misfits else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
