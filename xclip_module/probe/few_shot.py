"""The probe with few training videos: which are drawn, and the numbers of each draw."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from xclip_module.evaluation.summary import summarise
from xclip_module.interface import Curve, Question
from xclip_module.moments.answers import answer
from xclip_module.moments.tracks import SIMILARITY
from xclip_module.probe.fit import Fitted, Fitter, make_head
from xclip_module.probe.windows import TRAIN, VAL, ProbeData, Windows, check_shots
from xclip_module.run.progress import Progress
from xclip_module.tasks.localisation.score import Setup, scored_splits

# What is kept of each draw and split.
NUMBERS = ("AUROC", "AUPRC", "prevalence", "mAP@0.5")

log = logging.getLogger(__name__)


def few_shot(fitter: Fitter, setup: Setup, data: ProbeData, whole: Fitted) -> dict[str, Any]:
    """Numbers of every draw of `probe.shots` training videos, each with its own penalties from the whole val split.

    whole: the fit to all training videos, whose penalty a draw takes for what it shows and val does not.
    Raises ConfigError for more videos than there are.
    """
    section, train, val = fitter.config.probe, data.of(TRAIN), data.of(VAL)
    check_shots(fitter.config, len(train))
    rows = []
    shots = sorted(set(section.shots))
    drawn = [
        (count, draw, chosen)
        for count in shots
        for draw, chosen in enumerate(draw_videos(train, count, seed=fitter.config.run.seed, draws=section.draws))
    ]
    with Progress(len(drawn), name="few-shot", unit="draws", is_shown=True) as progress:
        for count, draw, chosen in drawn:
            fitted = fitter.fit(chosen, val, otherwise=whole.penalties)
            numbers = _numbers(fitter, fitted, setup, data)
            videos = [one.video for one in chosen]
            rows.append({"shots": count, "draw": draw, "videos": videos, "lambda": fitted.penalties, "splits": numbers})
            progress.advance(1, f"{count} of {len(train)} videos")
    return {"shots": shots, "draws": section.draws, "rows": rows}


def draw_videos(train: Sequence[Windows], count: int, *, seed: int, draws: int) -> list[list[Windows]]:
    """Up to `draws` different choices of `count` training videos, each in their order; fewer where there are no more.

    The first ones are the same whatever number is asked for.
    """
    rng = np.random.default_rng((seed, count))
    found: dict[tuple[int, ...], list[Windows]] = {}
    while len(found) < min(draws, math.comb(len(train), count)):
        places = tuple(sorted(rng.choice(len(train), count, replace=False).tolist()))
        found.setdefault(places, [train[place] for place in places])
    return list(found.values())


def _numbers(fitter: Fitter, fitted: Fitted, setup: Setup, data: ProbeData) -> dict[str, dict[str, Any]]:
    """Split -> the macro numbers of the per-window head, similarity-only."""
    corpus, config = setup.corpus, fitter.config
    head = make_head(fitted, fitter.queries, None, {}, {})
    questions = [Question(query.name, query.kind) for query in corpus.queries]
    found = {}
    for split in scored_splits(config, corpus):
        answers = []
        for one in data.of(split):
            curve = Curve(one.video, one.times, head.scores(one.features.cpu()).numpy(), one.duration)
            stride = setup.sampling.stride_seconds
            answers.append(answer(curve, questions, track=SIMILARITY, stride=stride, section=config.eval))
        macro = summarise(answers, corpus.moments, [question.name for question in questions]).macro
        found[split] = {name: macro[name] for name in NUMBERS}
    return found
