"""The probe with few training videos: which are drawn, and the numbers of each draw."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from xclip_module.assemble import Setup, scored_splits
from xclip_module.evaluation.answers import Question, answer
from xclip_module.evaluation.scoring import Curve
from xclip_module.evaluation.summary import summarise
from xclip_module.evaluation.tracks import SIMILARITY
from xclip_module.probe_data import TRAIN, VAL, ProbeData, Windows, check_shots
from xclip_module.probe_fit import Fitted, Fitter, make_head
from xclip_module.progress import Progress

# What is kept of each draw and split.
NUMBERS = ("AUROC", "AUPRC", "prevalence", "mAP@0.5")

log = logging.getLogger(__name__)


def few_shot(fitter: Fitter, setup: Setup, data: ProbeData) -> dict[str, Any]:
    """Numbers of every draw of `probe.shots` training videos, each with its own penalties from the whole val split.

    Raises ConfigError for more videos than there are.
    """
    section, train, val = fitter.config.probe, data.of(TRAIN), data.of(VAL)
    check_shots(fitter.config, len(train))
    rows = []
    shots = sorted(set(section.shots))
    drawn = [(count, draw) for count in shots for draw in range(section.draws if count < len(train) else 1)]
    with Progress(len(drawn), name="few-shot", unit="draws", is_shown=True) as progress:
        for count, draw in drawn:
            chosen = draw_videos(train, count, seed=fitter.config.run.seed, draw=draw)
            fitted = fitter.fit(chosen, val, is_quiet=True)
            numbers = _numbers(fitter, fitted, setup, data)
            videos = [one.video for one in chosen]
            rows.append({"shots": count, "draw": draw, "videos": videos, "lambda": fitted.penalties, "splits": numbers})
            progress.advance(1, f"{count} of {len(train)} videos")
    return {"shots": shots, "draws": section.draws, "rows": rows}


def draw_videos(train: Sequence[Windows], count: int, *, seed: int, draw: int) -> list[Windows]:
    """`count` training videos in their order; each draw by itself, whichever others are asked for."""
    places = np.random.default_rng((seed, count, draw)).choice(len(train), count, replace=False)
    return [train[place] for place in sorted(places)]


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
