"""The miniature benchmarks of golden/benchmarks/, with a file for every video that their loaders find."""

import json
import shutil
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden" / "benchmarks"
LOADERS = json.loads((GOLDEN / "loaders.json").read_text())
# As the released loaders met them; nothing of theirs or ours opens a video before it is decoded.
VIDEOS = {
    "msrvtt": ("video0.mp4", "video1.mp4", "video2.mp4", "video3.webm"),
    "msvd": ("vidA_1_5.avi", "vidB.x_0_9.avi", "sub/vidC_2_4.avi"),
    "lsmdc": (
        "0001_Movie/0001_Movie_00.00.01.000-00.00.04.000.avi",
        "0001_Movie/0001_Movie_00.00.05.000-00.00.09.000.mp4",
    ),
    "didemo": ("11@N00_1_a.avi.mp4", "22@N00_2_b.mov", "33@N00_3_c.mp4"),
    "activitynet": ("-made_up001.mp4", "made-up_002.mkv"),
}


def touch(folder: Path, *names: str) -> Path:
    """Files that are not empty, under a folder."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def plant(name: str, root: Path) -> tuple[Path, Path]:
    """A copy of one miniature: its annotations and its videos."""
    shutil.copytree(GOLDEN / name, root / "annotations", copy_function=shutil.copyfile)
    return root / "annotations", touch(root / "videos", *VIDEOS[name])
