"""What a copy of Cholec80 holds, beside what the complete set is known to hold."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xclip_module.datasets.cholec80.corpus import KNOWN_PHASE_ROWS, KNOWN_TOOL_ROWS, TWO_EXTRA_ROWS, Labels, read_labels
from xclip_module.datasets.cholec80.labels import LABEL_FPS
from xclip_module.datasets.cholec80.layout import Layout, find_layout, frame_folder, video_id
from xclip_module.errors import DataError, UserError

if TYPE_CHECKING:
    import pandas as pd


class Cholec80Check(NamedTuple):
    """One table row a video, the totals beside the known ones, and every misfit as one line."""

    videos: "pd.DataFrame"
    totals: "pd.DataFrame"
    misfits: list[str]


def check_cholec80(root: Path, *, length_of: Callable[[Path], float] | None) -> Cholec80Check:
    """Reads every label file and holds it against the video's length.

    length_of: seconds of a video file; None = no video is opened.
    Raises DataError only when there is nothing to check.
    """
    import pandas as pd

    if not root.is_dir():
        raise DataError("data root not found", root, "no such folder")
    layout = find_layout(root)
    numbers = sorted({*layout.videos, *layout.frames, *layout.phases, *layout.tools})
    if not numbers:
        raise DataError("nothing of Cholec80 found", root, "expected videos/video01.mp4, phase_annotations/ …")
    rows, misfits, labels = [], [], {}
    for number in numbers:
        try:
            labels[number] = read_labels(layout, number)
        except UserError as error:
            misfits.append(f"{video_id(number)}: {error}")
            labels[number] = Labels(None, None)
        seconds, problem = _length(layout, labels[number], number, length_of)
        rows.append(_row(layout, labels[number], number, seconds))
        lines = [*_row_misfits(labels[number], number), *([problem] if problem else [])]
        misfits += [f"{video_id(number)}: {line}" for line in lines]
    return Cholec80Check(pd.DataFrame(rows), _totals(labels), misfits)


def _row(layout: Layout, labels: Labels, number: int, seconds: float) -> dict[str, object]:
    kind = "video" if number in layout.videos else "frames" if number in layout.frames else "missing"
    return {
        "id": video_id(number),
        "source": kind,
        "seconds": round(seconds, 2),
        "phase rows": labels.phases.rows if labels.phases else 0,
        "tool rows": labels.tools.rows if labels.tools else 0,
        "phases": sum(bool(s) for s in labels.phases.segments.values()) if labels.phases else 0,
    }


def _length(
    layout: Layout, labels: Labels, number: int, length_of: Callable[[Path], float] | None
) -> tuple[float, str]:
    """Length in seconds, and what is wrong with it."""
    if number not in layout.videos and number not in layout.frames:
        return 0.0, "no video and no frames"
    try:
        if number in layout.videos:
            if length_of is None:
                return 0.0, ""
            seconds = length_of(layout.videos[number])
        else:
            seconds = frame_folder(layout.frames[number], label_seconds=labels.seconds).duration
    except UserError as error:
        return 0.0, str(error)
    track = labels.phases or labels.tools
    # The last phase row has no tool row and usually no decodable frame.
    tolerance = 2 * track.period if track else 0.0
    if track and abs(seconds - track.seconds) > tolerance + 1e-6 and number in layout.videos:
        return seconds, f"the video lasts {seconds:.2f} s, its {track.rows} label rows {track.seconds:.2f} s"
    return seconds, ""


def _row_misfits(labels: Labels, number: int) -> Iterator[str]:
    if not labels.phases:
        yield "no phase file"
    if not labels.tools:
        yield "no tool file"
    if labels.phases and labels.tools and labels.phases.period < labels.tools.period:
        # One row behind the last frame; the data set itself has a second one in two videos.
        extra = labels.phases.rows - LABEL_FPS * labels.tools.rows
        expected = 2 if number in TWO_EXTRA_ROWS else 1
        if extra != expected:
            yield f"{labels.phases.rows} phase rows, expected 25 x {labels.tools.rows} tool rows + {expected}"
    for name, segments in (labels.phases.segments if labels.phases else {}).items():
        if len(segments) > 1:
            yield f"{name} in {len(segments)} runs; in Cholec80 every phase is one run"


def _totals(labels: Mapping[int, Labels]) -> "pd.DataFrame":
    import pandas as pd

    tools = {number: track.tools.rows for number, track in labels.items() if track.tools}
    phases = sum(track.phases.rows for track in labels.values() if track.phases)
    ranges = {"1-40": range(1, 41), "41-80": range(41, 81), "all": range(1, 81)}
    counts = {name: sum(tools.get(number, 0) for number in part) for name, part in ranges.items()}
    rows = [(f"tool rows, videos {name}", count, KNOWN_TOOL_ROWS[name]) for name, count in counts.items()]
    rows += [("phase rows", phases, KNOWN_PHASE_ROWS), ("videos with labels", len(tools), 80)]
    return pd.DataFrame(rows, columns=["quantity", "found", "known"])
