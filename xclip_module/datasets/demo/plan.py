"""The plan of one synthetic operation, frame by frame: phases, instruments, camera, and the state of the field.

Legend: N frames of the video (25 a second). All times are seconds; places are world units as in `anatomy`.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xclip_module.datasets.cholec80.corpus import PHASES
from xclip_module.datasets.demo.anatomy import RING
from xclip_module.datasets.demo.scene import Look, Pull, Scene, View, gallbladder_point, to_picture
from xclip_module.datasets.demo.script import Script, Span, Visit, write_script
from xclip_module.datasets.demo.tools import Pose

Track = NDArray[Any]  # [N], one number a frame

FPS = 25
SPLITS = {"train": range(1, 7), "val": range(7, 10), "test": range(10, 13)}
OMITTED = {5: "CleaningCoagulation", 8: "Preparation", 12: "CleaningCoagulation"}
SWAPPED = (2, 11)  # cleaning before packaging

ARMS = ("SpecimenBag", "Assistant", "Grasper", "Irrigator", "Bipolar", "Hook", "Clipper", "Scissors")  # farthest first

# Of each number of a `Look`: in the hospital of training and validation, and in the other one of the test.
_RANGES = {
    "red": ((0.97, 1.09), (0.86, 0.92)),
    "blue": ((0.88, 1.02), (1.10, 1.20)),
    "gain": ((0.92, 1.10), (0.74, 0.84)),
    "gamma": ((0.92, 1.02), (1.14, 1.26)),
    "saturation": ((0.95, 1.10), (0.70, 0.82)),
    "falloff": ((0.50, 0.75), (0.95, 1.20)),
    "zoom": ((0.94, 1.06), (1.20, 1.30)),
    "slope": ((1.60, 1.85), (2.20, 2.50)),
    "contrast": ((0.09, 0.12), (0.055, 0.075)),
    "tool_scale": ((1.20, 1.34), (1.46, 1.58)),
    "tool_tint": ((-0.02, 0.06), (-0.22, -0.14)),
}
_HOME = {name: home for name, (home, _) in _RANGES.items()}
_AWAY = {name: away for name, (_, away) in _RANGES.items()}
LOOK_RANGES = {"train": _HOME, "val": _HOME, "test": _AWAY}


class Arm(NamedTuple):
    """One instrument through the whole video, every entry [N]."""

    tool: str
    x: Track  # world place of the tip at work
    y: Track
    presence: Track  # 1 at work, 0 withdrawn to the port
    opening: Track


class Operation(NamedTuple):
    """Everything that happens in one video."""

    number: int
    seed: tuple[int, ...]
    look: Look
    seconds: int
    spans: tuple[Span, ...]
    scene: Track  # [N, 9], columns as in Scene
    view: Track  # [N, 4], columns as in View
    tug: Track  # [N, 2] how far the holding grasper pulls
    haze: Track  # [N] density of smoke or fog, 0..1
    exposure: Track  # [N] factor on the light
    retrieved: Track  # [N] 0..1: how far the string of the bag leads to the trocar instead of its port
    arms: tuple[Arm, ...]
    ports: dict[str, tuple[float, float]]  # picture pixel towards which an arm's shaft leaves


def split_of(number: int) -> str:
    """Which split a video belongs to."""
    return next(name for name, numbers in SPLITS.items() if number in numbers)


def video_seed(seed: int, number: int) -> tuple[int, ...]:
    """Entropy of one video; no two splits share one, whatever the seed."""
    return (seed, list(SPLITS).index(split_of(number)), number)


def plan_operation(seed: int, number: int) -> Operation:
    """The operation of video `number`, the same for the same seed."""
    entropy = video_seed(seed, number)
    rng = np.random.default_rng(entropy)
    look = Look(**{name: float(rng.uniform(*bounds)) for name, bounds in LOOK_RANGES[split_of(number)].items()})
    seconds = int(rng.integers(70, 91))
    spans = _draw_spans(rng, seed, number, seconds)
    script = write_script(rng, spans)
    frames = seconds * FPS
    scene = np.stack([_track(script.keys.get(name, [(0, 0)]), frames, 0.08) for name in Scene._fields], axis=1)
    tug = np.stack([_wander(rng, frames, 5.0, 0.5) for _ in "xy"], axis=1)
    arms = tuple(_build_arm(name, script, scene, tug) for name in ARMS)
    return Operation(
        number,
        entropy,
        look,
        seconds,
        spans,
        scene,
        _film(script, frames, look.zoom),
        tug,
        _haze(rng, arms, frames),
        1 + _wander(rng, frames, 0.06, 1.5),
        _track(script.keys["retrieved"], frames, 0.2),
        arms,
        _draw_ports(rng),
    )


def phase_at(operation: Operation, frame: int) -> str:
    """The phase that runs at a 25-fps frame; behind the end, the last one."""
    return next((span.phase for span in operation.spans if frame / FPS < span.end - 1e-6), operation.spans[-1].phase)


def view_at(operation: Operation, frame: int) -> View:
    """Where the camera looks."""
    return View(*map(float, operation.view[frame]))


def scene_at(operation: Operation, frame: int) -> Scene:
    """How far the operation has gone, in steps of 1 % so that equal scenes are drawn once."""
    return Scene(*(round(float(value), 2) for value in operation.scene[frame]))


def pull_at(operation: Operation, frame: int) -> Pull:
    """Where the first grasper holds the tissue, and how far it tugs."""
    holder = operation.arms[ARMS.index("Grasper")]
    grip = float(holder.presence[frame]) * (operation.scene[frame, Scene._fields.index("dissected")] < 0.9)
    dx, dy = map(float, operation.tug[frame])
    return Pull(float(holder.x[frame]) - dx, float(holder.y[frame]) - dy, grip * dx, grip * dy)


def poses_at(operation: Operation, frame: int) -> list[Pose]:
    """The instruments in the picture, farthest first; one that is withdrawn entirely is left out."""
    view, poses = view_at(operation, frame), []
    scale = operation.look.tool_scale * (0.7 + 0.3 * view.zoom / operation.look.zoom)
    for name, arm in zip(ARMS, operation.arms, strict=True):
        presence = float(arm.presence[frame])
        if presence < 0.01:
            continue
        port = operation.ports[name]
        if name == "SpecimenBag":
            there, ring = float(operation.retrieved[frame]), to_picture(view, RING[0], RING[1] - 8)
            port = (port[0] + there * (ring[0] - port[0]), port[1] + there * (ring[1] - port[1]))
        x, y = to_picture(view, float(arm.x[frame]), float(arm.y[frame]))
        angle = np.arctan2(y - port[1], x - port[0])
        x, y = port[0] + presence * (x - port[0]), port[1] + presence * (y - port[1])
        fill = float(operation.scene[frame, Scene._fields.index("carried")]) if name == "SpecimenBag" else 0.0
        poses.append(Pose(arm.tool, float(x), float(y), float(angle), float(arm.opening[frame]), scale, fill))
    return poses


def _draw_spans(rng: np.random.Generator, seed: int, number: int, seconds: int) -> tuple[Span, ...]:
    """Phases in their order; Calot takes 12 to 60 %, the rest is shared with a large spread, 4.5 s or more each."""
    order = [phase for phase in PHASES if phase != OMITTED.get(number)]
    if number in SWAPPED:
        order[-3], order[-2] = order[-2], order[-3]
    # One stratum of the range for each video of a split: where phases begin differs as much as it can between them.
    numbers = SPLITS[split_of(number)]
    strata = np.random.default_rng((seed, number - numbers.index(number))).permutation(len(numbers))
    longest = 0.12 + 0.48 * (strata[numbers.index(number)] + rng.uniform()) / len(numbers)
    share = np.exp(1.2 * rng.standard_normal(len(order)))
    share[order.index("GallbladderDissection")] *= 2.5
    calot = order.index("CalotTriangleDissection")
    least, share[calot] = 4.5, 0
    lengths = least + share / share.sum() * ((1 - longest) * seconds - least * (len(order) - 1))
    lengths[calot] = longest * seconds
    edges = np.rint(np.concatenate([[0], np.cumsum(lengths)]) * FPS) / FPS
    edges[-1] = seconds
    return tuple(Span(p, float(a), float(b)) for p, a, b in zip(order, edges, edges[1:], strict=False))


def _draw_ports(rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    ports = {"Grasper": (-60, 105), "Assistant": (70, 235), "Bipolar": (300, 125), "SpecimenBag": (285, 165)}
    return {name: tuple(np.add(ports.get(name, (315, 70)), rng.uniform(-22, 22, 2)).tolist()) for name in ARMS}


def _build_arm(name: str, script: Script, scene: Track, tug: Track) -> Arm:
    frames, rng = len(scene), script.rng
    seconds = np.arange(frames) / FPS
    tip, presence = np.full((frames, 2), np.nan), np.zeros(frames)
    for visit in (visit for visit in script.visits if visit.arm == name):
        # Half a second beyond its presence, or it would drift to its next place while it is still being withdrawn.
        at = slice(max(int((visit.start - 0.5) * FPS), 0), max(int((visit.end + 0.5) * FPS), 0))
        tip[at] = _work_places(visit, seconds[at], scene[at])
        presence[int(visit.start * FPS) : int(visit.end * FPS)] = 1
    placed = np.flatnonzero(~np.isnan(tip[:, 0]))
    if not len(placed):  # never comes: anywhere will do
        placed, tip[0] = np.array([0]), 0.0
    tip = np.stack([np.interp(np.arange(frames), placed, tip[placed, axis]) for axis in (0, 1)], axis=1)
    dx, dy, opening = _stroke(name, seconds + rng.uniform(0, 9), tug)
    if name in script.keys:
        opening = _track(script.keys[name], frames, 0.05)
    x, y = (_smooth(tip[:, axis], 0.22) + stroke for axis, stroke in ((0, dx), (1, dy)))
    tool = "Grasper" if name == "Assistant" else name
    return Arm(tool, *(np.asarray(values, np.float32) for values in (x, y, _smooth(presence, 0.2), opening)))


def _work_places(visit: Visit, seconds: Track, scene: Track) -> Track:
    """Where the tip works in each frame of a visit, [frames, 2]."""
    if visit.along >= 0:
        dissected, carried = (scene[:, Scene._fields.index(name)] for name in ("dissected", "carried"))
        return np.stack(gallbladder_point(dissected, carried, visit.along), axis=1)
    times, x, y = zip(*visit.places, strict=True)
    return np.stack([np.interp(seconds, times, x), np.interp(seconds, times, y)], axis=1)


def _stroke(name: str, seconds: Track, tug: Track) -> tuple[Track, Track, Track]:
    """The movement typical of an instrument, (x, y) in world units, and the opening of its jaws."""
    turn = 2 * np.pi * seconds
    still = 0 * turn
    if name == "Hook":
        pull = np.maximum(np.sin(0.7 * turn), 0)
        return 5 * pull, -7 * pull, still
    if name == "Irrigator":
        return 9 * np.sin(0.35 * turn), 6 * np.cos(0.23 * turn), still
    if name == "Bipolar":
        return 2 * np.sin(0.8 * turn), 2.5 * np.sin(0.8 * turn), 0.35 + 0.3 * np.sin(0.8 * turn)
    if name == "Scissors":
        return 2 * np.sin(1.2 * turn), still, 0.5 + 0.5 * np.sin(1.2 * turn)
    if name == "Assistant":
        return 3 * np.sin(0.21 * turn), 3 * np.sin(0.17 * turn), 0.5 + 0.4 * np.sin(0.31 * turn)
    return (tug[:, 0], tug[:, 1], 0.2 + 0.1 * np.sin(0.2 * turn)) if name == "Grasper" else (still, still, still)


def _film(script: Script, frames: int, zoom: float) -> Track:
    """Camera path [N, 4]: smooth from aim to aim, with a drifting hand, breath, and now and then a glance aside."""
    rng, seconds = script.rng, np.arange(frames) / FPS
    x, y, near = (_track(script.keys[f"camera_{name}"], frames, 0.35) for name in ("x", "y", "zoom"))
    for middle in rng.uniform(4, seconds[-1] - 4, 5):
        aside = np.exp(-(((seconds - middle) / 0.7) ** 2))
        glance = rng.uniform(-26, 26, 2)
        x, y = x + glance[0] * aside, y + glance[1] * aside
    x = x + rng.normal(0, 7) + _wander(rng, frames, 3.0, 1.2)
    y = y + rng.normal(0, 5) + _wander(rng, frames, 2.0, 1.2) + 0.9 * np.sin(2 * np.pi * 0.27 * seconds)
    near = zoom * near * (1 + _wander(rng, frames, 0.03, 2.5))
    angle = rng.uniform(-0.35, 0.35) + _wander(rng, frames, 0.09, 4.0)
    return np.stack([x, y, near, angle], axis=1)


def _haze(rng: np.random.Generator, arms: tuple[Arm, ...], frames: int) -> Track:
    """Density of smoke and fog [N]: bursts while hook or bipolar work, and a lens that fogs up now and then."""
    working = np.maximum(*(arms[ARMS.index(name)].presence for name in ("Hook", "Bipolar")))
    bursts = (rng.uniform(size=frames) < 0.012) * (working > 0.9) * rng.uniform(0.1, 0.5, frames)
    bursts += (rng.uniform(size=frames) < 0.0016) * rng.uniform(0.5, 0.9, frames)
    decay = np.exp(-np.arange(6 * FPS) / (1.6 * FPS)) * (1 - np.exp(-np.arange(6 * FPS) / 8))
    return np.minimum(np.convolve(bursts, decay)[:frames], 0.75).astype(np.float32)


def _track(keys: list[tuple[float, float]], frames: int, deviation: float) -> Track:
    """Keyframes as a smooth curve [N]; `deviation` of the Gaussian in seconds."""
    times, values = zip(*sorted(keys), strict=True)
    return _smooth(np.interp(np.arange(frames) / FPS, times, values), deviation)


def _wander(rng: np.random.Generator, frames: int, size: float, deviation: float) -> Track:
    """Smooth random movement [N] of standard deviation `size`, around 0."""
    path = _smooth(rng.standard_normal(frames), deviation)
    return size * path / path.std()


def _smooth(values: Track, deviation: float) -> Track:
    reach = int(4 * deviation * FPS) + 1
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / (deviation * FPS)) ** 2)
    return np.convolve(np.pad(values, reach, mode="edge"), kernel / kernel.sum(), mode="valid")
