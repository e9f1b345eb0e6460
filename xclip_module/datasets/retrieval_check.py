"""What a copy of a retrieval benchmark holds, beside what the published one is known to hold.

python -m xclip_module.datasets.retrieval_check NAME --annotations=FOLDER --videos=FOLDER
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xclip_module.datasets.retrieval.benchmarks import BENCHMARKS, RetrievalSplit, Split, find_benchmark, load_split
from xclip_module.datasets.retrieval.video_index import index_videos
from xclip_module.errors import DataError, UserError

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 5
_USAGE = "usage: python -m xclip_module.datasets.retrieval_check NAME --annotations=FOLDER --videos=FOLDER\nNAME: "


class BenchmarkCheck(NamedTuple):
    """One table row a split, and every misfit as one line."""

    splits: "pd.DataFrame"
    misfits: list[str]


def check_benchmark(name: str, *, annotations: Path, videos: Path) -> BenchmarkCheck:
    """Every split of a benchmark: its annotations read, its videos looked for by name, none of them opened.

    Raises ConfigError for an unknown name, DataError where there is no folder of videos or of annotations.
    """
    import pandas as pd

    benchmark = find_benchmark(name)
    if not annotations.is_dir():
        raise DataError("annotation folder not found", annotations, "no such folder", "--annotations=FOLDER")
    index = index_videos(videos)
    rows, misfits = [], []
    for split, published in benchmark.splits.items():
        try:
            copy = load_split(name, split, annotations=annotations, videos=index)
        except DataError as error:
            misfits.append(f"{split}: {error}")
            continue
        rows.append(_row(copy, published))
        misfits += [f"{split}: {line}" for line in _misfits(copy, published)]
    return BenchmarkCheck(pd.DataFrame(rows), misfits)


def _row(copy: RetrievalSplit, published: Split) -> dict[str, object]:
    return {
        "split": copy.split,
        "texts": len(copy.texts),
        "known texts": published.texts or "-",
        "videos": len(copy.videos),
        "known videos": published.videos or "-",
        "found": len(copy.files),
        "missing": len(copy.missing),
        "pairs": copy.digest,
    }


def _misfits(copy: RetrievalSplit, published: Split) -> list[str]:
    lines = []
    counts = (("texts", len(copy.texts), published.texts), ("videos", len(copy.videos), published.videos))
    for what, count, expected in counts:
        if expected and count != expected:
            lines.append(f"{count} {what} in {copy.sources[0].name}, expected {expected}")
    if copy.missing:
        shown = ", ".join(copy.missing[:_SHOWN]) + (" …" if len(copy.missing) > _SHOWN else "")
        lines.append(f"{len(copy.missing)} of {len(copy.videos)} videos missing or empty: {shown}")
    return lines


def main(arguments: list[str]) -> int:
    """Prints the check of a copy; 0 when everything fits, 3 when something is missing or of another number."""
    import pandas as pd

    options = dict(word[2:].split("=", 1) for word in arguments if word.startswith("--") and "=" in word)
    names = [word for word in arguments if not word.startswith("--")]
    if len(names) != 1 or set(options) != {"annotations", "videos"} or len(arguments) != 3:
        sys.stderr.write(f"{_USAGE}{', '.join(BENCHMARKS)}\n")
        return 2
    try:
        check = check_benchmark(names[0], annotations=Path(options["annotations"]), videos=Path(options["videos"]))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    if len(check.splits):
        with pd.option_context("display.max_columns", None, "display.width", 160):
            sys.stdout.write(f"{check.splits.to_string(index=False)}\n\n")
    sys.stdout.write("\n".join(check.misfits) + "\n" if check.misfits else "no misfits\n")
    return DataError.exit_code if check.misfits else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
