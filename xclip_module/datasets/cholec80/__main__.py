"""`python -m xclip_module.datasets.cholec80 ROOT [--labels-only]`: does the copy hold what it should?"""

import sys
from pathlib import Path

from xclip_module.datasets.cholec80.check import check_cholec80
from xclip_module.errors import DataError, UserError
from xclip_module.video.inspect import probe


def main(arguments: list[str]) -> int:
    """Prints the check of a copy; 0 when everything fits, else the exit code of bad data."""
    roots = [word for word in arguments if not word.startswith("--")]
    if len(roots) != 1 or set(arguments) - {*roots, "--labels-only"}:
        sys.stderr.write("usage: python -m xclip_module.datasets.cholec80 ROOT [--labels-only]\n")
        return 2
    import pandas as pd

    length_of = None if "--labels-only" in arguments else lambda path: probe(path).duration
    try:
        report = check_cholec80(Path(roots[0]), length_of=length_of)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    with pd.option_context("display.max_rows", None, "display.width", 120):
        sys.stdout.write(f"{report.videos.to_string(index=False)}\n\n{report.totals.to_string(index=False)}\n\n")
    sys.stdout.write("\n".join(report.misfits) + "\n" if report.misfits else "no misfits\n")
    return DataError.exit_code if report.misfits else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
