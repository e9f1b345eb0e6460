"""The operating field of the synthetic demo at one moment: the state of the operation, the camera, the light.

Legend: H, W picture height and width in pixels; A, B canvas rows and columns; world units as in `anatomy`.
"""

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xclip_module.datasets.demo.anatomy import (
    DUCT,
    FUNDUS,
    LEFT,
    NECK,
    TOP,
    Array,
    Cavity,
    blend,
    canvas_grid,
    step,
    tube,
    values,
    with_slopes,
)

WIDTH, HEIGHT = 256, 144
FIELD_RADIUS = 90.0  # pixels; wider than half the height, so that the round field is cut above and below as in Cholec80
BARREL = 0.08  # how much the lens compresses the rim of the field

CLIP_PLACES = ((22.4, 10.8), (32.0, 18.4), (18.6, 8.2), (35.2, 21.4))
CUT_PLACE = (27.2, 14.6)
BAG_PLACE = (34.0, 26.0)

# Nothing outside these canvas rows and columns changes during an operation.
_MOVING = (slice(-150 - TOP, 125 - TOP), slice(-125 - LEFT, 105 - LEFT))


class Look(NamedTuple):
    """How one hospital's pictures look: colour, light, zoom, tissue and make of the instruments."""

    red: float  # channel gains of the white balance
    blue: float
    gain: float
    gamma: float
    saturation: float
    falloff: float  # loss of light from the middle to the rim
    zoom: float
    slope: float  # spectral slope of the texture: larger is smoother
    contrast: float  # of the texture
    tool_scale: float
    tool_tint: float  # below 0 is bluish and dark steel, above is warm and bright


class View(NamedTuple):
    """Where the camera looks: the world point in the middle, zoom, and rotation in radians."""

    x: float
    y: float
    zoom: float
    angle: float


class Scene(NamedTuple):
    """How far the operation has gone; every number runs from 0 to 1 except `clips`."""

    adhesions: float  # omentum still hanging on the gallbladder
    opened: float  # Calot's triangle freed of fat
    clips: float  # number of clips on the duct
    cut: float  # duct divided
    dissected: float  # gallbladder off its bed
    carried: float  # gallbladder on its way into the bag; inside at 1
    blood: float
    fluid: float
    burnt: float


class Pull(NamedTuple):
    """A grip on the tissue: its world place and how far it tugs, in world units."""

    x: float
    y: float
    dx: float
    dy: float


def compose(cavity: Cavity, scene: Scene) -> Array:
    """The canvas [A, B, 6] of one moment: red, green, blue, slope along x, slope along y, gloss."""
    canvas = cavity.still.copy()
    x, y = (grid[_MOVING] for grid in canvas_grid())
    moving, order = cavity.floor[_MOVING].copy(), cavity.order[_MOVING]
    _wet_bed(moving, order, scene, (x, y))
    _place_gallbladder(moving, cavity.gallbladder, scene, (x, y))
    if scene.opened < 1:
        _erode(moving, cavity.cover[_MOVING], 0.5 * order + 0.5 * step(tube(x, y, DUCT)[0] / 30), scene.opened)
    _mark_duct(moving, scene, (x, y))
    if scene.adhesions > 0:
        _erode(moving, cavity.omentum[_MOVING], 0.5 * order + 0.5 * step((y + 40) / 90), 1 - scene.adhesions)
    canvas[_MOVING] = with_slopes(moving)
    return canvas


def gallbladder_placement(dissected: Array, carried: Array) -> tuple[Array, Array, Array, Array]:
    """Turn (radians about the fundus), shift x, shift y and scale of the gallbladder; arrays of any one shape."""
    moved = step(carried / 0.85)
    turn = -0.95 * dissected * (1 - moved)
    shift_x = -6 * dissected * (1 - moved) + moved * (BAG_PLACE[0] - FUNDUS[0] - 20)
    shift_y = -12 * dissected * (1 - moved) + moved * (BAG_PLACE[1] - FUNDUS[1] - 16)
    return turn, shift_x, shift_y, 1 - 0.45 * moved


def gallbladder_point(dissected: Array, carried: Array, along: float) -> tuple[Array, Array]:
    """World place of the point `along` the gallbladder (0 fundus, 1 neck) after it was moved."""
    turn, shift_x, shift_y, scale = gallbladder_placement(dissected, carried)
    x, y = along * (NECK[0] - FUNDUS[0]) * scale, along * (NECK[1] - FUNDUS[1]) * scale
    cos, sin = np.cos(turn), np.sin(turn)
    return FUNDUS[0] + shift_x + cos * x - sin * y, FUNDUS[1] + shift_y + sin * x + cos * y


def see(canvas: Array, view: View, pull: Pull, look: Look) -> Array:
    """The lit tissue [H, W, 3] without instruments."""
    inside = _round_field() > 0
    dx, dy = (grid[inside] for grid in _lens_grid())
    cos, sin = np.float32(np.cos(view.angle) / view.zoom), np.float32(np.sin(view.angle) / view.zoom)
    x, y = view.x + cos * dx - sin * dy, view.y + sin * dx + cos * dy
    reach = np.exp(-((x - pull.x) ** 2 + (y - pull.y) ** 2) / 700)
    picture = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    seen = _sample(canvas, x - pull.dx * reach - LEFT, y - pull.dy * reach - TOP)
    columns, rows = (grid[inside] for grid in picture_grid())
    picture[inside] = _light(seen, (columns - WIDTH / 2) / FIELD_RADIUS, (rows - HEIGHT / 2) / FIELD_RADIUS, look)
    return picture


def to_picture(view: View, x: float, y: float) -> tuple[float, float]:
    """Picture pixel of a world point."""
    cos, sin = np.cos(view.angle) * view.zoom, np.sin(view.angle) * view.zoom
    dx, dy = cos * (x - view.x) + sin * (y - view.y), cos * (y - view.y) - sin * (x - view.x)
    radius = np.hypot(dx, dy) / FIELD_RADIUS
    # Two fixed-point steps undo seen = true * (1 + BARREL * seen^2) well below a pixel inside the field.
    seen = min(radius, 2.0) / (1 + BARREL * min(radius, 2.0) ** 2)
    seen = min(radius, 2.0) / (1 + BARREL * seen**2)
    shrink = seen / min(radius, 2.0) if radius > 0 else 1.0
    return float(WIDTH / 2 + dx * shrink), float(HEIGHT / 2 + dy * shrink)


def finish(picture: Array, look: Look, haze: Array) -> NDArray[np.uint8]:
    """The camera's picture, uint8 [H, W, 3]: haze [H, W] of smoke, grading, and black outside the round field."""
    picture = picture + haze[..., None] * (values(0.62, 0.60, 0.59) - picture)
    picture = picture * (values(look.red, 1.0, look.blue) * np.float32(look.gain))
    grey = picture.mean(axis=2, keepdims=True)
    picture = np.maximum(grey + np.float32(look.saturation) * (picture - grey), 0)
    picture = 1.12 * (1 - np.exp(-1.6 * picture)) ** np.float32(look.gamma)
    return np.rint(255 * np.clip(picture * _round_field()[..., None], 0, 1)).astype(np.uint8)


def haze_at(texture: Array, seconds: float, amount: float) -> Array:
    """Opacity [H, W] of drifting smoke: `texture` [A, B] of unit deviation slides by, `amount` 0..1 is its density."""
    shift = seconds * 9 % (texture.shape[0] - HEIGHT - 1)
    row, part = int(shift), np.float32(shift % 1)
    wisps = (1 - part) * texture[row : row + HEIGHT, :WIDTH] + part * texture[row + 1 : row + 1 + HEIGHT, :WIDTH]
    return amount * np.clip(0.6 + 0.35 * wisps, 0, 1)


def in_field(x: Array, y: Array) -> NDArray[np.bool_]:
    """Whether picture points lie inside both the picture and the round field."""
    inside = (x >= 0) & (x < WIDTH) & (y >= 0) & (y < HEIGHT)
    return inside & (np.hypot(x - WIDTH / 2, y - HEIGHT / 2) < FIELD_RADIUS)


@functools.lru_cache(maxsize=1)
def picture_grid() -> tuple[Array, Array]:
    """Column and row of every pixel, each [H, W]."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    return columns, rows


@functools.lru_cache(maxsize=1)
def _lens_grid() -> tuple[Array, Array]:
    columns, rows = picture_grid()
    dx, dy = columns - WIDTH / 2, rows - HEIGHT / 2
    stretch = 1 + BARREL * (dx * dx + dy * dy) / FIELD_RADIUS**2
    return dx * stretch, dy * stretch


@functools.lru_cache(maxsize=1)
def _round_field() -> Array:
    columns, rows = picture_grid()
    return step((FIELD_RADIUS - np.hypot(columns - WIDTH / 2, rows - HEIGHT / 2)) / 3).astype(np.float32)


def _sample(canvas: Array, x: Array, y: Array) -> Array:
    """Bilinear samples [..., C] of the canvas [A, B, C] at fractional column x and row y, held at the border."""
    x = np.clip(x, 0, canvas.shape[1] - 1.001)
    y = np.clip(y, 0, canvas.shape[0] - 1.001)
    column, row = np.floor(x), np.floor(y)
    fx, fy = (x - column)[..., None], (y - row)[..., None]
    flat, at = canvas.reshape(-1, canvas.shape[2]), row.astype(np.int64) * canvas.shape[1] + column.astype(np.int64)
    upper = flat.take(at, 0) * (1 - fx) + flat.take(at + 1, 0) * fx
    at += canvas.shape[1]
    return upper * (1 - fy) + (flat.take(at, 0) * (1 - fx) + flat.take(at + 1, 0) * fx) * fy


def _light(seen: Array, x: Array, y: Array, look: Look) -> Array:
    """Colour under a lamp at the camera, a little up and left: shading by slope, moving highlights, dark rim.

    seen: [P, 6] canvas samples.  x, y: [P] place in the field, 1 at its rim.  Returns [P, 3].
    """
    lx, ly = x + 0.16, y + 0.20
    squared = lx * lx + ly * ly
    slope_x, slope_y, gloss = seen[:, 3], seen[:, 4], seen[:, 5]
    facing = (1 + 0.8 * (slope_x * lx + slope_y * ly)) / np.sqrt((1 + slope_x**2 + slope_y**2) * (1 + 0.5 * squared))
    reach = 1 / (1 + look.falloff * squared)
    # A wet surface mirrors the lamp where its slope turns it half-way towards the camera.
    mirror = (slope_x - 0.55 * lx) ** 2 + (slope_y - 0.55 * ly) ** 2
    shine = gloss**2 * (0.8 * np.exp(-mirror / 0.018) + 0.16 * np.exp(-mirror / 0.12)) * reach
    return 1.25 * seen[:, :3] * (np.maximum(facing, 0.08) * reach)[:, None] + 1.1 * shine[:, None]


def _wet_bed(canvas: Array, order: Array, scene: Scene, grid: tuple[Array, Array]) -> None:
    x, y = grid
    near = step((58 - np.hypot((x + 24) * 0.75, y + 18)) / 30) * min(4 * scene.dissected, 1)
    burnt = near * step((0.55 * scene.burnt - order) / 0.08)
    canvas[..., :3] += 0.75 * burnt[..., None] * (values(0.22, 0.13, 0.09) - canvas[..., :3])
    pooled = 0.7 * order + 0.3 * step((20 - y) / 60)
    bleeding = near * step((0.7 * scene.blood - pooled) / 0.1)
    canvas[..., 3] += 0.8 * bleeding
    blend(canvas[..., :3], values(0.40, 0.015, 0.02), 0.9 * bleeding)
    flooded = step((62 - np.hypot((x + 6) * 0.6, y - 14)) / 20) * step((0.85 * scene.fluid - pooled) / 0.15)
    canvas[..., 3] += 1.2 * flooded
    canvas[..., 4] += (1 - canvas[..., 4]) * flooded
    blend(canvas[..., :3], values(0.66, 0.27, 0.21), 0.55 * flooded)


def _place_gallbladder(canvas: Array, layer: Array, scene: Scene, grid: tuple[Array, Array]) -> None:
    if scene.carried >= 1:
        return
    turn, shift_x, shift_y, scale = gallbladder_placement(*values(scene.dissected, scene.carried))
    x, y = grid[0] - FUNDUS[0] - shift_x, grid[1] - FUNDUS[1] - shift_y
    cos, sin = np.cos(turn) / scale, np.sin(turn) / scale
    moved = _sample(layer, FUNDUS[0] - LEFT + cos * x + sin * y, FUNDUS[1] - TOP - sin * x + cos * y)
    fading = 1 - float(step(values(scene.carried - 0.85) / 0.15)[0])
    if scene.dissected > 0:
        shadow = np.roll(moved[..., 5], (5, 4), axis=(0, 1))
        canvas[..., :3] *= (1 - 0.45 * fading * shadow)[..., None]
        moved[..., 3] += 6 * min(scene.dissected * 4, 1)
    blend(canvas, moved[..., :5], moved[..., 5] * fading)


def _erode(canvas: Array, layer: Array, order: Array, progress: float) -> None:
    """Lays a covering layer of which the places of low `order` are already gone; its edge is scorched and red."""
    left = step((order - 1.15 * progress + 0.15) / 0.15)
    edge = 4 * left * (1 - left) * (progress > 0)
    opacity = layer[..., 5] * left
    blend(canvas, layer[..., :5], opacity)
    canvas[..., :3] += (0.55 * edge * layer[..., 5])[..., None] * (values(0.50, 0.14, 0.09) - canvas[..., :3])


def _mark_duct(canvas: Array, scene: Scene, grid: tuple[Array, Array]) -> None:
    """The gap of the cut duct and the clips that sit across it."""
    x, y = grid
    along, across = 0.8, 0.6  # direction of the duct between the clips
    if scene.cut > 0:
        u, v = _turned(x, y, CUT_PLACE, (along, across))
        gap = step((3.6 * scene.cut - np.abs(u)) / 1.2) * step((8 - np.abs(v)) / 2)
        blend(canvas, values(0.46, 0.15, 0.12, 20.0, 0.7), gap)
    for spot, shown in zip(CLIP_PLACES, np.clip(scene.clips - np.arange(4), 0, 1), strict=True):
        u, v = _turned(x, y, spot, (along, across))
        bar = step((1.9 - np.abs(u)) / 0.8) * step((6.5 - np.abs(v)) / 0.8) * shown
        blend(canvas, values(0.80, 0.83, 0.90, 30.0, 1.0), bar)


def _turned(x: Array, y: Array, spot: tuple[float, float], way: tuple[float, float]) -> tuple[Array, Array]:
    dx, dy = x - spot[0], y - spot[1]
    return dx * way[0] + dy * way[1], dy * way[0] - dx * way[1]
