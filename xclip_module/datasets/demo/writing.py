"""A small synthetic data set in Cholec80's own layout: `python -m xclip_module.datasets.demo` writes it anew.

Twelve short operations drawn from a seed: videos (H.264, 25 fps), phase and tool files. Videos 01-06 are for training,
07-09 for validation; 10-12, the test, come from "another hospital" with other colour, light, zoom and instruments.
"""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xclip_module.datasets.cholec80.corpus import TOOLS
from xclip_module.datasets.demo import plan
from xclip_module.datasets.demo.anatomy import fractal, paint_cavity
from xclip_module.datasets.demo.scene import HEIGHT, WIDTH, compose, finish, haze_at, see
from xclip_module.datasets.demo.tools import draw, visible_tip
from xclip_module.run.storage import write_bytes, write_text

# Picked among 150 for strongly varied phase lengths: the mean segment of a phase in training reaches a mean tIoU of
# only 0.35 on val and 0.33 on test (over all seeds about 0.44; Cholec80 itself has 0.45).
SEED = 24
CRF = 25  # of x264; lower is larger and sharper
LOG = logging.getLogger(__name__)


def render(operation: plan.Operation, start: int = 0, stop: int | None = None) -> Iterator[NDArray[np.uint8]]:
    """Yields frames `start` to `stop` (25-fps numbers, end excluded; None = to the end), each uint8 [H, W, 3]."""
    rng, look = np.random.default_rng((*operation.seed, 1)), operation.look
    cavity = paint_cavity(rng, slope=look.slope, contrast=look.contrast)
    wisps = fractal(rng, 3.0, 60)
    canvas, drawn = None, None
    for frame in range(start, operation.seconds * plan.FPS if stop is None else stop):
        scene = plan.scene_at(operation, frame)
        if canvas is None or scene != drawn:
            canvas, drawn = compose(cavity, scene), scene
        picture = see(canvas, plan.view_at(operation, frame), plan.pull_at(operation, frame), look)
        for pose in plan.poses_at(operation, frame):
            picture = draw(picture, pose, look.tool_tint)
        exposed = look._replace(gain=look.gain * float(operation.exposure[frame]))
        yield finish(picture, exposed, haze_at(wisps, frame / plan.FPS, float(operation.haze[frame])))


def visible_tools(operation: plan.Operation, frame: int) -> tuple[int, ...]:
    """0 or 1 for each of `TOOLS`: whether at least half of a tip of its kind is visible in a frame."""
    poses = plan.poses_at(operation, frame)
    seen = {pose.tool for pose in poses if visible_tip(pose) >= 0.5}
    return tuple(int(tool in seen) for tool in TOOLS)


def phase_file(operation: plan.Operation) -> str:
    """Text of videoNN-phase.txt: one row per frame, and one more behind the end as in Cholec80."""
    frames = range(operation.seconds * plan.FPS + 1)
    return "\n".join(["Frame\tPhase", *(f"{frame}\t{plan.phase_at(operation, frame)}" for frame in frames)]) + "\n"


def tool_file(operation: plan.Operation) -> str:
    """Text of videoNN-tool.txt: one row per second."""
    frames = range(0, operation.seconds * plan.FPS, plan.FPS)
    rows = ("\t".join(map(str, (frame, *visible_tools(operation, frame)))) for frame in frames)
    return "\n".join(["\t".join(("Frame", *TOOLS)), *rows]) + "\n"


def encode(frames: Iterator[NDArray[np.uint8]], crf: int = CRF) -> bytes:
    """The frames, uint8 [H, W, 3], as an mp4 file: H.264, 4:2:0, 25 fps, the same bytes each time on one machine."""
    import av

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("libx264", rate=plan.FPS)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            # One thread: with more, x264 splits the work by timing, and the bytes differ from run to run.
            stream.codec_context.thread_count = 1
            stream.options = {"preset": "veryslow", "crf": str(crf), "g": "250", "bf": "3", "threads": "1"}
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        return path.read_bytes()


def write_video(out: Path, seed: int, number: int) -> str:
    """Writes one operation's three files below `out`; returns one line that says what was written."""
    operation = plan.plan_operation(seed, number)
    name = f"video{number:02d}"
    video = encode(render(operation))
    write_bytes(out / "videos" / f"{name}.mp4", video)
    write_text(out / "phase_annotations" / f"{name}-phase.txt", phase_file(operation))
    write_text(out / "tool_annotations" / f"{name}-tool.txt", tool_file(operation))
    phases = " ".join(f"{span.phase}:{span.end - span.start:.0f}s" for span in operation.spans)
    return f"{name} ({plan.split_of(number)}): {operation.seconds} s, {len(video) / 1e6:.2f} MB, {phases}"
