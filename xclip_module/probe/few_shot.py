"""The probe with few training videos: which are drawn, and the numbers of each draw."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from xclip_module.interface import Curve
from xclip_module.moments.tracks import SIMILARITY
from xclip_module.probe.corpus import TRAIN, VAL, check_shots
from xclip_module.probe.fit import Fitted, Fitter, make_head
from xclip_module.probe.windows import ProbeData, Windows
from xclip_module.run.progress import Progress
from xclip_module.tasks.localisation.judging import Judge

# What is kept of each draw and split.
NUMBERS = ("AUROC", "AUPRC", "prevalence", "mAP@0.5")


def few_shot(
    fitter: Fitter, data: ProbeData, whole: Fitted, *, judging: Judge, splits: Sequence[str], seed: int
) -> dict[str, Any]:
    """Numbers of every draw of `probe.shots` training videos, each with its own penalties from the whole val split.

    whole: the fit to all training videos, whose penalty a draw takes for what it shows and val does not.
    splits: those that are scored.  seed: of which videos are drawn.
    Raises ConfigError for more videos than there are.
    """
    section, train, val = fitter.section, data.of(TRAIN), data.of(VAL)
    check_shots(section, len(train))
    rows = []
    shots = sorted(set(section.shots))
    drawn = [
        (count, draw, chosen)
        for count in shots
        for draw, chosen in enumerate(draw_videos(train, count, seed=seed, draws=section.draws))
    ]
    with Progress(len(drawn), name="few-shot", unit="draws", is_shown=True) as progress:
        for count, draw, chosen in drawn:
            fitted = fitter.fit(chosen, val, otherwise=whole.penalties)
            numbers = {split: _numbers(fitter, fitted, judging, data.of(split)) for split in splits}
            videos = [video.video for video in chosen]
            rows.append({"shots": count, "draw": draw, "videos": videos, "lambda": fitted.penalties, "splits": numbers})
            progress.advance(1, f"{count} of {len(train)} videos")
    return {"shots": shots, "draws": section.draws, "rows": rows}


def draw_videos(train: Sequence[Windows], count: int, *, seed: int, draws: int) -> list[list[Windows]]:
    """Up to `draws` different choices of `count` training videos, each in their order; fewer where there are no more.

    The first ones are the same whatever number is asked for.
    """
    rng = np.random.default_rng((seed, count))
    chosen: dict[tuple[int, ...], list[Windows]] = {}
    while len(chosen) < min(draws, math.comb(len(train), count)):
        numbers = tuple(sorted(rng.choice(len(train), count, replace=False).tolist()))
        chosen.setdefault(numbers, [train[number] for number in numbers])
    return list(chosen.values())


def _numbers(fitter: Fitter, fitted: Fitted, judging: Judge, videos: Sequence[Windows]) -> dict[str, Any]:
    """The macro numbers of the per-window head, similarity-only."""
    head = make_head(fitted, fitter.queries, None, {}, {})
    curves = [
        Curve(video.video, video.times, head.scores(video.features.cpu()).numpy(), video.duration) for video in videos
    ]
    macro = judging.summary(judging.answers(curves, SIMILARITY)).macro
    return {name: macro[name] for name in NUMBERS}
