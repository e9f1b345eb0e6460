"""The seven instruments of the synthetic demo: shape, colour, and how much of a tip the camera sees.

Every instrument is drawn in its own frame: u runs along the shaft towards the tip, which ends near u = 0; v across.
Both are in pixels at scale 1. Signed distances are negative inside. H, W are the picture's height and width.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from xclip_module.datasets.cholec80.corpus import TOOLS
from xclip_module.datasets.demo.anatomy import Array, step, values
from xclip_module.datasets.demo.scene import in_field, picture_grid

STEEL, BRIGHT = (0.62, 0.64, 0.68), (0.80, 0.82, 0.86)
BLACK, DARK = (0.075, 0.075, 0.085), (0.20, 0.20, 0.22)
BLUE, DEEP_BLUE = (0.10, 0.25, 0.72), (0.08, 0.16, 0.45)
GOLD, CREAM, GREEN = (0.95, 0.68, 0.12), (0.86, 0.80, 0.66), (0.10, 0.62, 0.30)
GREY, WHITE = (0.40, 0.42, 0.44), (0.90, 0.92, 0.95)


class Pose(NamedTuple):
    """Where one instrument is and what it does."""

    tool: str
    x: float  # picture pixel of the working point
    y: float
    angle: float  # radians in which the shaft points: 0 right, pi/2 down
    opening: float = 0.5  # of the jaws or the bag, 0..1
    scale: float = 1.0
    fill: float = 0.0  # how much of the gallbladder is in the bag, 0..1


class Part(NamedTuple):
    """One piece of an instrument, painted in order."""

    distance: Array  # signed distance, pixels at scale 1
    colour: tuple[float, float, float] | Array
    rounding: float = 3.0  # pixels over which the edge turns away from the light
    tip: bool = True  # belongs to the tip, not to the shaft
    opacity: float = 1.0


def draw(picture: Array, pose: Pose, tint: float = 0.0) -> Array:
    """The picture [H, W, 3] with one instrument and its shadow; `tint` < 0 makes it bluish and dark, > 0 warm."""
    columns, rows = picture_grid()
    dx, dy = (columns - pose.x) / pose.scale, (rows - pose.y) / pose.scale
    cos, sin = np.float32(np.cos(pose.angle)), np.float32(np.sin(pose.angle))
    u, v = cos * dx + sin * dy, cos * dy - sin * dx
    parts = _PARTS[pose.tool](u, v, pose)
    shadow = np.zeros_like(u)
    shadow[7:, 5:] = step(0.6 - _solid(parts)[:-7, :-5] / 8)
    picture = picture * (1 - 0.4 * shadow)[..., None]
    # The lamp sits at the camera, so an instrument brightens towards the border, where it comes close to it.
    near = np.clip(1 - 0.0022 * (u + 40), 0.85, 1.25)
    cast = values(1 + tint, 1 + 0.5 * tint, 1 - 0.5 * tint)
    for part in parts:
        opacity = np.clip(0.5 - part.distance * pose.scale, 0, 1) * part.opacity
        at = opacity > 0
        inside = np.clip(-part.distance[at] / part.rounding, 0, 1)
        light = 0.42 + 0.58 * np.sqrt(inside) + 0.35 * np.exp(-(((inside - 0.75) / 0.14) ** 2)) * (v[at] < 0)
        colour = values(*part.colour) if isinstance(part.colour, tuple) else part.colour[at]
        picture[at] += opacity[at][:, None] * ((near[at] * light)[:, None] * cast * colour - picture[at])
    return picture


def visible_tip(pose: Pose) -> float:
    """Fraction of the tip's area that lies inside the picture and the round field, 0..1."""
    u, v = _tip_points(pose.tool, round(pose.opening, 1))
    cos, sin = pose.scale * np.cos(pose.angle), pose.scale * np.sin(pose.angle)
    return float(in_field(pose.x + cos * u - sin * v, pose.y + sin * u + cos * v).mean())


@functools.cache
def _tip_points(tool: str, opening: float) -> tuple[Array, Array]:
    v, u = np.mgrid[-50:51, -80:51].astype(np.float32)
    parts = _PARTS[tool](u, v, Pose(tool, 0, 0, 0, opening))
    tip = _solid([part for part in parts if part.tip]) < 0
    return u[tip], v[tip]


def _solid(parts: list[Part]) -> Array:
    return functools.reduce(np.minimum, (part.distance for part in parts))


def _grasper(u: Array, v: Array, pose: Pose) -> list[Part]:
    spread = 1.2 + 9 * pose.opening
    jaws = []
    for side in (-1, 1):
        jaw = _rod(u, v, (-27, 0), (-1, side * spread), (3.6, 2.8))
        window = _rod(u, v, (-20, side * spread * 0.28), (-6, side * spread * 0.8), (1.5, 1.3))
        jaws.append(Part(np.maximum(jaw, -window), BRIGHT, 2.2))
    hub = _rod(u, v, (-33, 0), (-26, 0), (5.4, 4.0))
    return [Part(_shaft(u, v, -31, 5.2), STEEL, 5.0, tip=False), *jaws, Part(hub, STEEL, 4.0)]


def _bipolar(u: Array, v: Array, pose: Pose) -> list[Part]:
    spread = 2 + 8 * pose.opening
    prongs = []
    for side in (-1, 1):
        bow = (-15.0, side * (spread + 3))
        near, far = _rod(u, v, (-28, side * 1.5), bow, (2.6, 2.6)), _rod(u, v, bow, (-6, side * spread), (2.6, 2.2))
        tip = _rod(u, v, (-7, side * spread), (0, side * spread * 0.7), (2, 1.6))
        prongs += [Part(np.minimum(near, far), BLUE, 2.2), Part(tip, BRIGHT, 1.6)]
    band = Part(_band(u, v, -32, -27, 5.2), BLUE, 4.0)
    return [Part(_shaft(u, v, -28, 5.0), DEEP_BLUE, 5.0, tip=False), band, *prongs]


def _hook(u: Array, v: Array, pose: Pose) -> list[Part]:
    rod = _rod(u, v, (-20, 0), (-2, 0), (1.7, 1.6))
    bend = _rod(u, v, (-2, 0), (-1.5, 9), (1.6, 1.3))
    band = Part(_band(u, v, -25, -19, 3.6), CREAM, 3.0)
    return [Part(_shaft(u, v, -23, 5.0), BLACK, 5.0, tip=False), band, Part(np.minimum(rod, bend), BRIGHT, 1.6)]


def _scissors(u: Array, v: Array, pose: Pose) -> list[Part]:
    spread = 1 + 9 * pose.opening
    blades = [Part(_rod(u, v, (-21, -side * 2.5), (0, side * spread), (3.3, 0.6)), BRIGHT, 2.5) for side in (-1, 1)]
    pivot = Part(np.hypot(u + 16, v) - 1.5, DARK, 1.0)
    band = Part(_band(u, v, -31, -22, 5.4), GOLD, 4.0)
    return [Part(_shaft(u, v, -23, 4.8), DARK, 5.0, tip=False), band, *blades, pivot]


def _clipper(u: Array, v: Array, pose: Pose) -> list[Part]:
    spread = 2.6 + 5.5 * pose.opening
    parts = [Part(_shaft(u, v, -26, 8.0), STEEL, 7.5, tip=False), Part(_band(u, v, -38, -27, 8.6), GREEN, 6.0)]
    for side in (-1, 1):
        bow = (-16, side * (spread + 2.5))
        near, far = _rod(u, v, (-26, side * 4), bow, (3.6, 3.2)), _rod(u, v, bow, (0, side * spread), (3.2, 2.6))
        parts.append(Part(np.minimum(near, far), STEEL, 2.6))
    if pose.opening > 0.25:
        parts.append(Part(_rod(u, v, (-4, -spread), (-4, spread), (1.4, 1.4)), WHITE, 1.2))
    return parts


def _irrigator(u: Array, v: Array, pose: Pose) -> list[Part]:
    tube = np.maximum(_rod(u, v, (-60, 0), (-5, 0), (5.6, 5.6)), -32 - u)
    holes = [Part(np.hypot((u - at) / 1.3, v - side) - 1.5, BLACK, 1.0) for at, side in _HOLES]
    mouth = Part(np.hypot((u + 2) / 0.6, v) - 3.6, BLACK, 1.5)
    return [Part(_shaft(u, v, -30, 5.6), GREY, 5.5, tip=False), Part(tube, GREY, 5.5), *holes, mouth]


def _bag(u: Array, v: Array, pose: Pose) -> list[Part]:
    wide = 15 + 5 * max(pose.opening, pose.fill)
    folds = 0.85 + 0.13 * np.sin(0.30 * u + 0.25 * v + 1.2 * np.sin(0.16 * v)) * np.sin(0.12 * u - 0.33 * v)
    content = (0.75 * pose.fill * np.exp(-((u - 6) ** 2 / 300 + v**2 / 110)))[..., None]
    film = folds[..., None] * ((1 - content) * values(*WHITE) + content * values(0.42, 0.46, 0.30))
    pouch = _ellipse(u, v, (4, 0), (27, wide))
    rim, mouth = (5 + 6 * pose.opening, 11 + 7 * pose.opening), (-18.0, 0.0)
    ring = np.abs(_ellipse(u, v, mouth, rim)) - 1.6
    throat = Part(_ellipse(u, v, mouth, rim), (0.45, 0.42, 0.40), 6.0, opacity=0.9)
    shaft = Part(_rod(u, v, (-400, 0), (-24, 0), (2.6, 2.0)), WHITE, 2.0, tip=False)
    return [shaft, Part(pouch, film, 12.0, opacity=0.9), throat, Part(ring, WHITE, 1.4)]


def _shaft(u: Array, v: Array, end: float, radius: float) -> Array:
    # Perspective: the shaft grows towards the camera.
    return np.maximum(np.abs(v) - radius * (1 + 0.0035 * np.maximum(end - u, 0)), u - end)


def _band(u: Array, v: Array, start: float, end: float, radius: float) -> Array:
    return np.maximum(np.abs(v) - radius, np.abs(u - (start + end) / 2) - (end - start) / 2)


def _rod(u: Array, v: Array, start: tuple[float, float], end: tuple[float, float], radii: tuple[float, float]) -> Array:
    eu, ev = end[0] - start[0], end[1] - start[1]
    along = np.clip(((u - start[0]) * eu + (v - start[1]) * ev) / (eu * eu + ev * ev), 0, 1)
    across = np.hypot(u - start[0] - along * eu, v - start[1] - along * ev)
    return across - radii[0] - along * (radii[1] - radii[0])


def _ellipse(u: Array, v: Array, middle: tuple[float, float], radii: tuple[float, float]) -> Array:
    return (np.hypot((u - middle[0]) / radii[0], (v - middle[1]) / radii[1]) - 1) * min(radii)


_HOLES = ((-8, -2.6), (-11, 2.2), (-15, -2.2), (-18, 2.6), (-22, -2.6), (-25, 2.2))
_DRAWERS = (_grasper, _bipolar, _hook, _scissors, _clipper, _irrigator, _bag)  # in the order of TOOLS
_PARTS: dict[str, Callable[[Array, Array, Pose], list[Part]]] = dict(zip(TOOLS, _DRAWERS, strict=True))
