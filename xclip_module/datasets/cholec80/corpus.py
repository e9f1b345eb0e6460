"""Cholec80 (Twinanda et al. 2017): phases, tools, splits, and the loader of any copy of it.

`python -m xclip_module.datasets.cholec80 ROOT` prints what a copy holds beside the known counts.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from xclip_module.config import DataConfig
from xclip_module.datasets.cholec80.labels import LabelTrack, read_phases, read_tools
from xclip_module.datasets.cholec80.layout import Layout, find_layout, frame_folder, video_id
from xclip_module.datasets.prompts import prompt_file, read_prompts
from xclip_module.errors import DataError
from xclip_module.interface import Corpus, Missing, Query, Segment, Video, split_hash

# In the order of the data set's README. TF-Cholec80 has another one, so phases are matched by name, never by number.
PHASES = (
    "Preparation",
    "CalotTriangleDissection",
    "ClippingCutting",
    "GallbladderDissection",
    "GallbladderPackaging",
    "CleaningCoagulation",
    "GallbladderRetraction",
)
# The textbook's order, which 51 of the 80 videos take in full, cleaning before packaging (12) or at the very end (2).
# A phase may always be left out, as Preparation (8) and CleaningCoagulation (6) are.
PROCEDURE_ORDERS = (PHASES, (*PHASES[:4], PHASES[5], PHASES[4], PHASES[6]), (*PHASES[:5], PHASES[6], PHASES[5]))
TOOLS = ("Grasper", "Bipolar", "Hook", "Scissors", "Clipper", "Irrigator", "SpecimenBag")

# Last number of train, val and test. 32/8/40: Funke et al. 2023; 40/8/32: TeCNO (Czempiel et al. 2020); 40/40: EndoNet
# (Twinanda et al. 2017), where no video is left to choose a model on.
SPLITS = {"32/8/40": (32, 40, 80), "40/8/32": (40, 48, 80), "40/40": (40, 40, 80)}
# The demo has Cholec80's layout and twelve videos.
DEMO_SPLIT = (6, 9, 12)

# Of the complete set, on which three independent sources agree.
KNOWN_TOOL_ROWS = {"1-40": 86_304, "41-80": 98_194, "all": 184_498}
KNOWN_PHASE_ROWS = 4_612_532
# Phase rows beyond 25 per tool row: one in every video but these.
TWO_EXTRA_ROWS = {15, 37}
# Frames and phase rows may differ by so many: the last row has no tool row and usually no decodable frame.
_ROW_TOLERANCE = 2


class Labels(NamedTuple):
    """The label tracks of one video, either of which a copy may lack."""

    phases: LabelTrack | None
    tools: LabelTrack | None

    @property
    def seconds(self) -> float:
        """Length of the truth: the tool rows, 25 phase rows each, without the trailing phase row."""
        return self.tools.seconds if self.tools else self.phases.seconds if self.phases else 0.0

    @property
    def segments(self) -> Mapping[str, tuple[Segment, ...]]:
        """All classes, phases first, cut at `seconds`."""
        tracks = [track for track in (self.phases, self.tools) if track]
        return {name: _cut(segments, self.seconds) for track in tracks for name, segments in track.segments.items()}


def load_cholec80(data: DataConfig) -> Corpus:
    """Cholec80 in any layout (see `find_layout`) under the named split.

    Raises DataError for a missing folder, a label file that is broken or fits neither its video nor its partner, and
    for absent videos of the splits to be scored unless `data.skip_unreadable` is set.
    """
    return _load(Path(data.root or "data/cholec80"), data, SPLITS[data.splits], f"Cholec80 {data.splits}")


def load_demo(data: DataConfig) -> Corpus:
    """The synthetic demo in Cholec80's layout: videos 1-6 train, 7-9 val, 10-12 test (another "hospital")."""
    root = Path(data.root) if data.root else Path(__file__).parents[3] / "data" / "demo"
    return _load(root, data, DEMO_SPLIT, "demo 6/3/3")


def read_labels(layout: Layout, number: int) -> Labels:
    """The labels of one video. Raises DataError when its two files disagree by more than a label period."""
    phases = read_phases(layout.phases[number], PHASES) if number in layout.phases else None
    tools = read_tools(layout.tools[number], TOOLS) if number in layout.tools else None
    if phases and tools and abs(phases.seconds - tools.seconds) > max(phases.period, tools.period):
        rows = f"{phases.rows} rows = {phases.seconds:g} s of phases, {tools.rows} rows = {tools.seconds:g} s of tools"
        raise DataError("phase and tool labels disagree", layout.phases[number], rows, "download both again")
    return Labels(phases, tools)


def _load(root: Path, data: DataConfig, lasts: tuple[int, int, int], name: str) -> Corpus:
    if not root.is_dir():
        raise DataError("data root not found", root, "no such folder", f"--data.name={data.name} --data.root=FOLDER")
    layout = find_layout(root)
    if not layout.videos and not layout.frames:
        expected = "expected videos/video01.mp4 … or frames/video01/000001.jpg …"
        raise DataError("no video found", root, expected, f"python -m xclip_module.datasets.cholec80 {root}")
    train, val, test = lasts
    split_of = {n: "train" if n <= train else "val" if n <= val else "test" for n in range(1, test + 1)}
    numbers = [number for number in split_of if number in layout.phases or number in layout.tools]
    labels = {number: read_labels(layout, number) for number in numbers}
    missing = _missing(layout, labels, split_of, data)
    videos = tuple(
        _video(layout, labels[number], number, split_of[number], data)
        for number in numbers
        if number in layout.videos or number in layout.frames
    )
    ids: dict[str, tuple[str, ...]] = {}
    for number, split in split_of.items():
        ids[split] = (*ids.get(split, ()), video_id(number))
    kinds = ((PHASES, "phase", layout.phases), (TOOLS, "tool", layout.tools))
    classes = {name: kind for names, kind, files in kinds if files for name in names}
    prompts = prompt_file(data.prompts)
    # Only classes with label files become queries: of a class without truth there is nothing to score.
    texts = read_prompts(prompts, tuple(classes))
    return Corpus(
        name=data.name,
        videos=videos,
        queries=tuple(Query(name, texts[name], kind) for name, kind in classes.items()),
        moments={video_id(number): track.segments for number, track in labels.items()},
        protocol=f"{name}, split {split_hash(ids)}, prompts {prompts.name}",
        missing=missing,
        orders=PROCEDURE_ORDERS if layout.phases else (),
    )


def _missing(
    layout: Layout, labels: Mapping[int, Labels], split_of: Mapping[int, str], data: DataConfig
) -> tuple[Missing, ...]:
    """Videos of the splits to be scored that lack file or labels; refused unless the user allows it."""
    on_disk = {*layout.videos, *layout.frames}
    missing = tuple(
        Missing(video_id(number), split, "no labels" if number not in labels else "no video")
        for number, split in split_of.items()
        if split in data.evaluate and not (number in labels and number in on_disk)
    )
    if missing and not data.skip_unreadable:
        shown = ", ".join(f"{video.id} ({video.why})" for video in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        root = data.root or data.name
        raise DataError(f"{len(missing)} videos missing", root, shown + more, "--data.skip_unreadable=true")
    return missing


def _video(layout: Layout, labels: Labels, number: int, split: str, data: DataConfig) -> Video:
    track = labels.phases or labels.tools
    assert track is not None, "a video without labels was left out before"
    # A video file is held against its phase rows, one a frame; extracted frames against the rows of the truth, below.
    tolerance = _ROW_TOLERANCE * track.period if labels.phases else track.period
    if number in layout.videos:
        return Video(video_id(number), layout.videos[number], split, track.seconds, tolerance)
    frames = frame_folder(layout.frames[number], label_seconds=labels.seconds, fps=data.frame_fps, base=data.frame_base)
    return Video(video_id(number), frames, split, labels.seconds, max(1.0, tolerance))


def _cut(segments: tuple[Segment, ...], seconds: float) -> tuple[Segment, ...]:
    # The last phase usually ends with the row that has no frame.
    return tuple((start, min(end, seconds)) for start, end in segments if start < seconds)
