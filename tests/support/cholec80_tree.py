"""Small folders in the formats that labs have on disk."""

from pathlib import Path

import numpy as np
from PIL import Image

from support.barcode import write_video
from xclip_module.datasets.cholec80.corpus import PHASES, TOOLS


def write_labels(root: Path, number: int, *, seconds: int, phases: dict[str, tuple[int, int]] | None = None) -> None:
    """Phase and tool files of a video of whole seconds, phases as (start, end); the hook is on in the middle third."""
    (root / "phase_annotations").mkdir(parents=True, exist_ok=True)
    (root / "tool_annotations").mkdir(parents=True, exist_ok=True)
    third = seconds // 3
    phases = phases or {PHASES[0]: (0, third), PHASES[1]: (third, 2 * third), PHASES[3]: (2 * third, seconds)}
    rows = ["Frame\tPhase"]
    for frame in range(25 * seconds + 1):
        name = next((name for name, (a, b) in phases.items() if a * 25 <= frame < b * 25), list(phases)[-1])
        rows.append(f"{frame}\t{name}")
    (root / "phase_annotations" / f"video{number:02d}-phase.txt").write_text("\n".join(rows) + "\n")
    rows = ["Frame\t" + "\t".join(TOOLS)]
    for second in range(seconds):
        on = third <= second < 2 * third
        rows.append(f"{25 * second}\t" + "\t".join(str(int(on and tool == "Hook")) for tool in TOOLS))
    (root / "tool_annotations" / f"video{number:02d}-tool.txt").write_text("\n".join(rows) + "\n")


def write_copy(root: Path, numbers, *, seconds: int = 12) -> Path:
    """Videos and labels in the official layout; every frame shows its own number."""
    (root / "videos").mkdir(parents=True, exist_ok=True)
    for number in numbers:
        write_video(root / "videos" / f"video{number:02d}.mp4", frames=25 * seconds)
        write_labels(root, number, seconds=seconds)
    return root


def write_frames(folder: Path, numbers, *, pattern: str = "{:06d}.png") -> list[Path]:
    """Tiny pictures whose grey level is their place in the list."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for place, number in enumerate(numbers):
        files.append(folder / pattern.format(number))
        Image.fromarray(np.full((18, 32, 3), place % 256, np.uint8)).save(files[-1])
    return files
