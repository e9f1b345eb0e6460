"""The anatomy of the synthetic demo: one patient's liver, gallbladder, duct and fat, painted once as layers.

Legend: A, B canvas rows and columns. World units are picture pixels at zoom 1, x to the right, y down, the origin in
Calot's triangle; the abdominal wall with the trocar lies far up (negative y). A layer is [A, B, 5]: red, green, blue
(0..1 before light), height (world units) and gloss (0..1); a sixth channel is the layer's opacity.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]  # of float32 wherever there is one number per pixel or more

LEFT, RIGHT, TOP, BOTTOM = -190, 190, -350, 150

FUNDUS, NECK = (-62.0, -54.0), (8.0, 2.0)
GALLBLADDER = ((-62.0, -54.0, 26.0), (-40.0, -36.0, 28.0), (-16.0, -16.0, 20.0), (0.0, -3.0, 12.0), (10.0, 4.0, 5.0))
DUCT = ((4.0, 0.0, 4.5), (20.0, 9.0, 3.8), (34.0, 20.0, 3.8), (44.0, 34.0, 5.5), (50.0, 80.0, 6.5))
ARTERY = ((8.0, -14.0, 1.8), (30.0, -4.0, 2.2), (62.0, 2.0, 2.8))
RING, RING_RADIUS = (6.0, -236.0), 27.0


class Cavity(NamedTuple):
    """One patient's abdomen as layers, with the map that says in which order it is opened, flooded and burnt."""

    still: Array  # [A, B, 6] the floor as `with_slopes` gives it
    floor: Array  # [A, B, 5] liver, omentum, bowel, abdominal wall, raw bed, freed triangle with duct and artery
    gallbladder: Array  # [A, B, 6]
    cover: Array  # [A, B, 6] fat over Calot's triangle
    omentum: Array  # [A, B, 6] adhesions on the gallbladder
    order: Array  # [A, B] 0..1, evenly spread; low values go first


class Patient(NamedTuple):
    """What the layers are painted with: bent coordinates [A, B], noise maps [A, B], and tones."""

    x: Array
    y: Array
    smooth: tuple[Array, Array, Array]  # relief of unit deviation, of wavelength 70, 40 and 22 world units
    grain: tuple[Array, Array]  # colour, blotches and fine grain, with the contrast of the texture already in it
    tones: Array  # [5] 0..1: colour of liver and fat, of gallbladder (2), how much fat there is


def paint_cavity(rng: np.random.Generator, *, slope: float, contrast: float) -> Cavity:
    """A patient drawn from `rng`; `slope` (spectral, larger is smoother) and `contrast` set the tissue's texture."""
    x, y = canvas_grid()
    bend, smooth = [fractal(rng, 3.5, 80) for _ in "xy"], [fractal(rng, 3.5, length) for length in (70, 40, 22)]
    grain = [np.float32(contrast) * fractal(rng, slope, length) for length in (45, 14)]
    x, y = x + 4 * bend[0], y + 4 * bend[1]
    patient = Patient(x, y, (smooth[0], smooth[1], smooth[2]), (grain[0], grain[1]), rng.uniform(size=5))
    fat = _paint_fat(rng, patient)
    floor = _paint_floor(patient, fat)
    fat[..., 3] += 22  # above the liver it lies on
    cover = fat.copy()
    cover[..., :3] = 0.55 * cover[..., :3] + 0.45 * values(0.84, 0.45, 0.36)
    near = np.hypot((patient.x - 24) / 40, (patient.y - 10) / 27) + 0.09 * smooth[1]
    hanging = np.hypot((patient.x + 22) / 46, (patient.y + 6) / 25) + 0.12 * smooth[1]
    return Cavity(
        still=with_slopes(floor),
        floor=floor,
        gallbladder=_paint_gallbladder(patient),
        cover=_with_opacity(cover, step((1 - near) / 0.2)),
        omentum=_with_opacity(fat, step((1 - hanging) / 0.2)),
        order=_evenly(smooth[2] + 0.7 * smooth[1] + 1.5 * grain[1]),
    )


@functools.cache
def canvas_grid() -> tuple[Array, Array]:
    """World x and y of every canvas cell, each [A, B]."""
    y, x = np.mgrid[TOP:BOTTOM, LEFT:RIGHT].astype(np.float32)
    return x, y


def fractal(rng: np.random.Generator, slope: float, wavelength: float) -> Array:
    """Noise [A, B] of unit deviation: spectrum flat above `wavelength` (world units), falling with `slope` below."""
    rows, columns = BOTTOM - TOP, RIGHT - LEFT
    frequency = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None])
    spectrum = np.fft.rfft2(rng.standard_normal((rows, columns))) / (wavelength**-2 + frequency**2) ** (slope / 2)
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, (rows, columns))
    return (noise / noise.std()).astype(np.float32)


def values(*numbers: float) -> Array:
    """A short float32 array, such as a colour: it does not turn what it meets into float64."""
    return np.array(numbers, np.float32)


def step(value: Array) -> Array:
    """Smooth rise from 0 (value <= 0) to 1 (value >= 1)."""
    value = np.clip(value, 0, 1)
    return value * value * (3 - 2 * value)


def blend(under: Array, over: Array, opacity: Array) -> None:
    """Lays `over` [..., C] on `under` [..., C] in place, as far as `opacity` [...] says."""
    under += opacity[..., None] * (over - under)


def with_slopes(layer: Array) -> Array:
    """A layer [A, B, 5] with its height turned into slopes along x and y, [A, B, 6]; limited, to keep steps lit."""
    along_y, along_x = (1.1 * np.tanh(slope / 1.1) for slope in np.gradient(layer[..., 3]))
    return np.concatenate([layer[..., :3], along_x[..., None], along_y[..., None], layer[..., 4:]], axis=2)


def tube(x: Array, y: Array, path: tuple[tuple[float, float, float], ...]) -> tuple[Array, Array]:
    """Signed distance to a bent tube through (x, y, radius) knots, negative inside, and its radius at each cell."""
    distance, radius = np.full_like(x, np.inf), np.zeros_like(x)
    for (x0, y0, r0), (x1, y1, r1) in zip(path, path[1:], strict=False):
        ex, ey = x1 - x0, y1 - y0
        along = np.clip(((x - x0) * ex + (y - y0) * ey) / (ex * ex + ey * ey), 0, 1)
        r = r0 + along * (r1 - r0)
        d = np.hypot(x - x0 - along * ex, y - y0 - along * ey) - r
        radius = np.where(d < distance, r, radius)
        distance = np.minimum(d, distance)
    return distance.astype(np.float32), radius.astype(np.float32)


def tissue(colour: tuple[float, ...], shade: Array, height: Array, gloss: float) -> Array:
    """A layer [A, B, 5] of one colour, varied by `shade` (0 = the colour itself)."""
    shade = np.maximum(1 + shade, 0.2)[..., None]
    # The shade works harder on green and blue, as blood under the surface does.
    rgb = values(*colour) * shade ** values(1.0, 1.35, 1.3)
    return np.concatenate([rgb, height[..., None], np.full_like(height, gloss)[..., None]], axis=2)


def _paint_floor(patient: Patient, fat: Array) -> Array:
    x, y, smooth, grain, tones = patient
    floor = _paint_liver(patient)
    blend(floor, fat, step((y - 50 + 26 * tones[4] - 9 * smooth[0] + 0.12 * x) / 8))
    middle = np.hypot((x - 108) / 62, (y - 84) / 46)
    colour_change = 0.5 * grain[0] - 0.3 * _vessels(smooth[1], 0.07)
    bowel = tissue((0.86, 0.47, 0.41), colour_change, 16 * np.sqrt(np.clip(1 - middle**2, 0, 1)), 0.6)
    blend(floor, bowel, step((1 - middle) / 0.1))
    _open_triangle(floor, patient)
    _raw_bed(floor, patient)
    _paint_wall(floor, patient)
    return floor


def _paint_liver(patient: Patient) -> Array:
    x, y, smooth, grain, tones = patient
    edge = step((y - 4 + 0.25 * x - 5 * smooth[0]) / 22)
    lobes = 30 * np.sqrt(np.clip(1 - ((y + 60) / 160) ** 2, 0, 1)) + 2.2 * smooth[0] + 0.5 * smooth[2] - 7 * edge
    liver = tissue(_between((0.38, 0.13, 0.10), (0.58, 0.25, 0.16), tones[0]), grain[0] + grain[1], lobes, 0.6)
    liver[..., :3] *= (1 - 0.4 * edge)[..., None]
    return liver


def _open_triangle(floor: Array, patient: Patient) -> None:
    x, y, smooth, grain, tones = patient
    window = step((1 - np.hypot((x - 24) / 40, (y - 8) / 27) - 0.08 * smooth[1]) / 0.25)
    height = floor[..., 3] + 0.6 * smooth[2] - 2 * window
    blend(floor, tissue((0.56, 0.25, 0.19), 1.2 * grain[0] + 0.5 * grain[1], height, 0.75), window)
    plain_x, plain_y = canvas_grid()
    for path, colour in ((ARTERY, (0.80, 0.26, 0.20)), (DUCT, (0.84, 0.74, 0.48))):
        distance, radius = tube(plain_x, plain_y, path)
        height = 0.9 * radius * np.sqrt(np.clip(1 - (1 + distance / np.maximum(radius, 1)) ** 2, 0, 1))
        vessel = tissue(colour, 0.4 * grain[1], floor[..., 3] + height, 0.8)
        blend(floor, vessel, step(0.5 - distance / 1.5) * step(window / 0.3))


def _raw_bed(floor: Array, patient: Patient) -> None:
    x, y, smooth, grain, tones = patient
    distance, _ = tube(x, y, GALLBLADDER)
    inside = step((-distance - 1 + 2 * smooth[2]) / 8)
    height = floor[..., 3] + 1.2 * smooth[2] - 3 * inside
    bed = tissue((0.68, 0.19, 0.12), 1.2 * grain[0] + 1.5 * grain[1], height, 0.85)
    strands = 0.5 * _vessels(smooth[2], 0.2)[..., None]
    bed[..., :3] += strands * (values(0.82, 0.58, 0.36) - bed[..., :3])
    blend(floor, bed, inside)


def _paint_wall(floor: Array, patient: Patient) -> None:
    x, y, smooth, grain, tones = patient
    reach = step((-140 - y + 10 * smooth[0]) / 10)
    colour_change = 0.5 * grain[0] - 0.45 * _vessels(smooth[0], 0.05) - 0.2 * _vessels(smooth[1], 0.05)
    blend(floor, tissue((0.84, 0.56, 0.49), colour_change, 4 * smooth[0], 0.35), reach)
    x, y = canvas_grid()
    from_ring = np.hypot(x - RING[0], (y - RING[1]) * 1.12)
    metal = tissue((0.66, 0.67, 0.70), 0.3 * np.sin(np.arctan2(y - RING[1], x - RING[0]) * 3), 0 * x, 0.4)
    hole = tissue((0.05, 0.04, 0.05), 0.3 * np.cos(from_ring * 0.5), 0 * x, 0.2)
    blend(floor, metal, step((RING_RADIUS + 6 - from_ring) / 2))
    blend(floor, hole, step((RING_RADIUS - from_ring) / 3))


def _paint_gallbladder(patient: Patient) -> Array:
    x, y, smooth, grain, tones = patient
    distance, radius = tube(x, y, GALLBLADDER)
    bulge = 0.9 * radius * np.sqrt(np.clip(1 - (1 + distance / np.maximum(radius, 1)) ** 2, 0, 1))
    healthy = _between((0.64, 0.64, 0.30), (0.42, 0.52, 0.52), tones[2])
    colour = _between(healthy, (0.74, 0.50, 0.40), 0.7 * tones[3] ** 2)  # an inflamed one is pink
    colour_change = 0.5 * grain[0] + 0.2 * grain[1] - 0.25 * _vessels(smooth[1], 0.05)
    skin = tissue(colour, colour_change, bulge + 0.4 * smooth[2], 1.0)
    skin[..., 4] *= step(-distance / 8)  # a mirror on the steep rim would draw a bright outline
    return _with_opacity(skin, step(-distance / 3))


def _paint_fat(rng: np.random.Generator, patient: Patient) -> Array:
    x, y, smooth, grain, tones = patient
    lumps = _lumps(rng, x + 3 * smooth[1], y + 3 * smooth[2])
    colour_change = 0.6 * grain[0] + 0.3 * grain[1] - 0.35 * (1 - lumps)
    colour = _between((0.93, 0.66, 0.25), (0.88, 0.72, 0.46), tones[1])
    fat = tissue(colour, colour_change, 4 * lumps + 2 * smooth[1], 0.6)
    veins = 0.45 * _vessels(smooth[0], 0.04)[..., None]
    fat[..., :3] += veins * (values(0.66, 0.16, 0.12) - fat[..., :3])
    return fat


def _between(first: tuple[float, ...], last: tuple[float, ...], share: float) -> tuple[float, ...]:
    """A colour between two others."""
    return tuple(float(a + share * (b - a)) for a, b in zip(first, last, strict=True))


def _lumps(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """Rounded lobules [A, B], 0 in the grooves and 1 on top: distance to the nearest of scattered centres."""
    nearest = np.full_like(x, 1e9)
    for px, py in rng.uniform((LEFT, -75), (RIGHT, BOTTOM), (380, 2)):
        rows, columns = slice(max(int(py) - 45 - TOP, 0), int(py) + 45 - TOP), slice(max(int(px) - 45 - LEFT, 0), None)
        squared = (x[rows, columns] - px) ** 2 + (y[rows, columns] - py) ** 2
        nearest[rows, columns] = np.minimum(nearest[rows, columns], squared)
    return np.clip(1 - nearest / 160, 0, 1)


def _vessels(noise: Array, width: float) -> Array:
    """Thin winding lines, 1 on the line: where smooth noise crosses zero."""
    return np.exp(-((noise / width) ** 2))


def _evenly(values: Array) -> Array:
    """The same map with its values spread evenly over 0..1, by rank."""
    ranks = np.empty(values.size, np.float32)
    ranks[np.argsort(values, axis=None, kind="stable")] = np.linspace(0, 1, values.size, dtype=np.float32)
    return ranks.reshape(values.shape)


def _with_opacity(layer: Array, opacity: Array) -> Array:
    return np.concatenate([layer, opacity[..., None].astype(np.float32)], axis=2)
