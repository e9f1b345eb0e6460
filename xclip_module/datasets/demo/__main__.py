"""`python -m xclip_module.datasets.demo`: draws the demo data set anew."""

import argparse
import functools
import logging
import multiprocessing
from collections.abc import Sequence
from pathlib import Path

from xclip_module.datasets.demo import plan
from xclip_module.datasets.demo.writing import LOG, SEED, write_video


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: writes the whole set, or the named videos of it."""
    parser = argparse.ArgumentParser(prog="python -m xclip_module.datasets.demo", description=main.__doc__)
    out = Path("data/demo")
    parser.add_argument("--out", type=Path, default=out, help="folder to write into (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="another seed, another set (default: %(default)s)")
    parser.add_argument("--videos", default="", help="numbers with commas between, such as 01,07 (default: all)")
    parser.add_argument("--processes", type=int, default=2, help="videos drawn side by side (default: %(default)s)")
    options = parser.parse_args(arguments)
    planned = [number for numbers in plan.SPLITS.values() for number in numbers]
    numbers = [int(number) for number in options.videos.split(",") if number] or planned
    if not set(numbers) <= set(planned):
        parser.error(f"--videos {options.videos}: expected numbers from {planned[0]:02d} to {planned[-1]:02d}")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    write = functools.partial(write_video, options.out, options.seed)
    with multiprocessing.get_context("spawn").Pool(min(options.processes, len(numbers))) as pool:
        for line in pool.imap(write, numbers):
            LOG.info(line)


if __name__ == "__main__":
    main()
