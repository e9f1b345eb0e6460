"""The script of one synthetic operation: for each phase the instruments that come, and how the field changes.

All times are seconds; places are world units as in `anatomy`.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from xclip_module.datasets.demo.anatomy import RING
from xclip_module.datasets.demo.scene import BAG_PLACE, CLIP_PLACES, CUT_PLACE

Place = tuple[float, float]
FREED, BED = (22.0, 8.0), (-22.0, -14.0)  # middle of the opened triangle and of the liver bed


class Span(NamedTuple):
    """One phase and when it runs."""

    phase: str
    start: float
    end: float


class Visit(NamedTuple):
    """One stay of an instrument in the field; it works at `places` (second, x, y), or holds the gallbladder."""

    arm: str  # a tool, or "Assistant" for the second grasper
    start: float
    end: float
    places: tuple[tuple[float, float, float], ...] = ()
    along: float = -1.0  # where on the gallbladder it holds: 0 fundus, 1 neck; < 0 nowhere


@dataclass(frozen=True)
class Script:
    """Keyframes (second, value) by name, and the visits of the instruments.

    A key is a field of `Scene`, camera_x, camera_y, camera_zoom, retrieved (see `plan`), or a tool: its opening.
    """

    rng: np.random.Generator
    keys: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    visits: list[Visit] = field(default_factory=list)

    def set(self, **values: tuple[tuple[float, float], ...]) -> None:
        """Adds keyframes."""
        for name, pairs in values.items():
            self.keys.setdefault(name, []).extend(pairs)


def write_script(rng: np.random.Generator, spans: tuple[Span, ...]) -> Script:
    """What happens in these phases, with the details drawn from `rng`."""
    script = Script(rng)
    for span in spans:
        _PLAYS[span.phase](script, span.start, span.end)
    return script


def _preparation(script: Script, start: float, end: float) -> None:
    _look_at(script, (start, end), (-18, -12, 0.86), (-4, 0, 0.98))
    left = script.rng.uniform(0.0, 0.6)
    script.set(adhesions=((start, script.rng.uniform(0.6, 1.0)), (end - 0.5, left)))
    for begin, stop in _turns(script.rng, start + 0.4, end, busy=5.0, pause=1.2):
        _stay(script, "Grasper", (begin, stop), (-34, -6), 7)
    for begin, stop in _turns(script.rng, start + 1.5, end - 0.5, busy=3.0, pause=4.0):
        _stay(script, "Assistant", (begin, stop), (-14, 10), 8)
    if script.rng.uniform() < 0.5:
        _stay(script, "Hook", (end - 2.2, end), (2, 6), 6)
    if end - start > 6 and script.rng.uniform() < 0.7:
        _inspect_wall(script, start + 0.5, start + script.rng.uniform(2.8, 4.2))


def _calot(script: Script, start: float, end: float) -> None:
    length = end - start
    _look_at(script, (start, end), (14, 4, 1.20), (22, 8, 1.38))
    earlier = script.keys.get("adhesions", [(0.0, 0.5)])[-1][1]
    script.set(adhesions=((start, earlier), (start + script.rng.uniform(0.15, 0.5) * length, 0.0)))
    script.set(burnt=((start, 0.0), (end, 0.15)))
    script.set(opened=((start, 0.0), (start + 0.5 * length, script.rng.uniform(0.35, 0.6)), (end, 0.92)))
    _hold(script, start, end, along=0.95)
    for begin, stop in _turns(script.rng, start + 0.6, end - 0.3, busy=6.0, pause=1.6):
        _energy(script, (begin, stop), FREED, 9)
    for begin, stop in _turns(script.rng, start + 3, end - 1, busy=3.5, pause=9.0):
        _stay(script, "Assistant", (begin, stop), (34, 26), 6)


def _clipping(script: Script, start: float, end: float) -> None:
    length = end - start
    _look_at(script, (start, end), (28, 13, 1.50), (28, 14, 1.58))
    script.set(opened=((start, 0.92), (start + 0.15 * length, 1.0)))
    _hold(script, start, end, along=0.95)
    number = int(np.clip(0.58 * length / 2.0, 1, 4))
    each = 0.58 * length / number
    for clip, spot in enumerate(CLIP_PLACES[:number]):
        begin, stop = start + 0.3 + clip * each, start + clip * each + min(each, 5.0)
        _stay(script, "Clipper", (begin, stop - 0.1), spot, 0.6)
        script.set(Clipper=((begin, 1.0), (stop - 0.9, 1.0), (stop - 0.5, 0.05), (stop - 0.2, 0.1)))
        script.set(clips=((stop - 0.55, clip), (stop - 0.5, clip + 1)))
    _stay(script, "Scissors", (start + 0.62 * length, start + 0.95 * length), CUT_PLACE, 0.8)
    script.set(cut=((start + 0.72 * length, 0.0), (start + 0.88 * length, 1.0)))


def _dissection(script: Script, start: float, end: float) -> None:
    length, rng = end - start, script.rng
    _look_at(script, (start, end), (6, -4, 1.22), (-26, -28, 1.12))
    script.set(dissected=((start, 0.02), (start + 0.5 * length, rng.uniform(0.35, 0.6)), (end, 1.0)))
    script.set(blood=((start, 0.0), (end, rng.uniform(0.25, 0.6))), burnt=((start, 0.15), (end, 0.65)))
    _hold(script, start, end, along=0.8)
    for begin, stop in _turns(rng, start + 0.5, end - 0.2, busy=6.0, pause=1.3):
        done = (begin - start) / length
        _energy(script, (begin, stop), (8 - 56 * done, 6 - 40 * done), 6)
    for begin, stop in _turns(rng, start + 2, end - 1, busy=3.0, pause=8.0):
        _stay(script, "Assistant", (begin, stop), (-4, 22), 6)


def _packaging(script: Script, start: float, end: float) -> None:
    length = end - start
    _look_at(script, (start, end), (6, 0, 0.94), (20, 12, 1.06))
    script.set(carried=((start + 0.30 * length, 0.0), (start + 0.68 * length, 1.0)))
    script.set(SpecimenBag=((start, 1.0), (start + 0.70 * length, 1.0), (start + 0.9 * length, 0.15)))
    script.visits.append(Visit("Grasper", start + 0.4, start + 0.68 * length, along=0.45))
    _stay(script, "Grasper", (start + 0.74 * length, end), (BAG_PLACE[0] - 14, BAG_PLACE[1] - 6), 2)
    script.visits.append(Visit("SpecimenBag", start + 0.12 * length, end, ((start, *BAG_PLACE),)))
    for begin, stop in _turns(script.rng, start + 1.5, end - 0.5, busy=3.0, pause=3.0):
        _stay(script, "Assistant", (begin, stop), (4, 30), 5)


def _cleaning(script: Script, start: float, end: float) -> None:
    length, rng = end - start, script.rng
    _look_at(script, (start, end), (-22, -16, 1.10), (-12, -6, 1.22))
    before = script.keys["blood"][-1][1]
    script.set(blood=((start, before), (start + 0.25 * length, before + 0.2), (end - 0.3, 0.12)))
    script.set(fluid=((start + 0.3, 0.0), (start + 0.3 * length, 1.0), (start + 0.6 * length, 0.8), (end, 0.1)))
    script.set(burnt=((start, 0.65), (end, 1.0)))
    _hold(script, start, end, along=-1.0)
    if length > 7 and rng.uniform() < 0.6:
        _inspect_wall(script, end - 3.8, end - 0.6)
    at, tools = start + 0.4, ("Irrigator", "Bipolar") if rng.uniform() < 0.75 else ("Bipolar", "Irrigator")
    while at < end - 1.2:
        for tool, share in zip(tools, rng.uniform((2.0, 1.4), (4.0, 3.0)), strict=True):
            if at < end - 1.2:
                _stay(script, tool, (at, min(at + share, end - 0.1)), BED, 12)
            at += share + rng.uniform(0.2, 0.7)


def _retraction(script: Script, start: float, end: float) -> None:
    """First the closed bag is found where it lies, then it is drawn up to the trocar in the abdominal wall."""
    rise = start + script.rng.uniform(0.05, 0.45) * (end - start)
    _look_at(script, (start, rise), (4, -2, 1.02), (14, 2, 1.10))
    _look_at(script, (rise, end), (-4, -206, 1.02), (4, -222, 1.32))
    path = ((rise - 0.5, *BAG_PLACE), (rise + 0.7, -8.0, -192.0), (end, 4.0, -220.0))
    script.visits.append(Visit("SpecimenBag", start - 0.4, end + 2, path))
    script.set(retrieved=((rise - 0.2, 0.0), (rise + 0.7, 1.0)))
    script.set(SpecimenBag=((start, 0.1), (end, 0.0)))
    edge = tuple((second, x - 12, y + 14) for second, x, y in path)
    for begin, stop in _turns(script.rng, start + 0.5, end + 1, busy=5.0, pause=1.5):
        script.visits.append(Visit("Grasper", begin, stop, edge))


_PLAYS = {
    "Preparation": _preparation,
    "CalotTriangleDissection": _calot,
    "ClippingCutting": _clipping,
    "GallbladderDissection": _dissection,
    "GallbladderPackaging": _packaging,
    "CleaningCoagulation": _cleaning,
    "GallbladderRetraction": _retraction,
}


def _look_at(script: Script, span: Place, first: tuple[float, ...], last: tuple[float, ...]) -> None:
    """Camera x, y and zoom from early to late in a phase; it is aimed anew, never quite the same, every few seconds."""
    early, late = span[0] + 0.7, span[1] - 0.5
    times = np.linspace(early, late, max(int((late - early) / 4.5), 1) + 1)
    share = np.linspace(0, 1, len(times))[:, None]
    aims = (1 - share) * first + share * np.array(last)
    aims = aims + script.rng.normal(0, 1, aims.shape) * (8, 6, 0.09) + script.rng.normal(0, 1, 3) * (7, 5, 0.10)
    for column, name in enumerate(("camera_x", "camera_y", "camera_zoom")):
        script.set(**{name: tuple(zip(times.tolist(), aims[:, column].tolist(), strict=True))})


def _inspect_wall(script: Script, start: float, end: float) -> None:
    """A look up at the abdominal wall and back, as when a trocar goes in or its wound is checked."""
    for name, there in (("camera_x", RING[0] - 10), ("camera_y", RING[1] + 26), ("camera_zoom", 0.95)):
        keys = script.keys[name]
        times, aims = zip(*sorted(keys), strict=True)
        before, after = (float(np.interp(second, times, aims)) for second in (start, end))
        keys[:] = [key for key in keys if not start <= key[0] <= end]
        aim = there + float(script.rng.normal(0, 0.15 if name == "camera_zoom" else 14))
        script.set(**{name: ((start, before), (start + 0.8, aim), (end - 0.8, aim), (end, after))})


def _stay(script: Script, arm: str, span: Place, middle: Place, spread: float) -> None:
    """One visit that moves to another place every two seconds or so."""
    times = np.arange(span[0], span[1] + 1, script.rng.uniform(1.4, 2.4))
    spots = script.rng.normal(0, spread, (len(times), 2)) + middle
    places = tuple((float(t), float(x), float(y)) for t, (x, y) in zip(times, spots, strict=True))
    script.visits.append(Visit(arm, *span, places))


def _turns(rng: np.random.Generator, start: float, end: float, *, busy: float, pause: float) -> list[Place]:
    """When an instrument is in the field: turns of about `busy` seconds with about `pause` seconds between."""
    turns, at = [], start + float(rng.uniform(0, 0.3)) * pause
    while at < end - 1.0:
        stop = min(at + busy * float(rng.uniform(0.6, 1.6)), end)
        turns.append((at, stop))
        at = stop + pause * float(rng.uniform(0.6, 1.4))
    return turns


def _hold(script: Script, start: float, end: float, *, along: float) -> None:
    """The first grasper holds the gallbladder, or the rim of the liver where `along` < 0, with a rare pause."""
    for begin, stop in _turns(script.rng, start + 0.1, end + 0.4, busy=9.0, pause=1.5):
        if along >= 0:
            script.visits.append(Visit("Grasper", begin, stop, along=along))
        else:
            _stay(script, "Grasper", (begin, stop), (-52, 2), 5)


def _energy(script: Script, span: Place, middle: Place, spread: float) -> None:
    """The hook works; now and then the bipolar or the irrigator takes its place for a moment."""
    start, end = span
    if end - start > 5.5 and script.rng.uniform() < 0.4:
        swap = end - script.rng.uniform(1.8, 2.8)
        _stay(script, script.rng.choice(["Bipolar", "Bipolar", "Irrigator"]), (swap + 0.4, end), middle, spread)
        end = swap
    _stay(script, "Hook", (start, end), middle, spread)
