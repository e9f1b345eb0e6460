"""Curves of every video: the scorer on stored features, which are encoded first where there are none."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from xclip_module.config import DataConfig, ModelConfig
from xclip_module.errors import DataError
from xclip_module.features.scoring import check_finite
from xclip_module.features.store import FeatureStore
from xclip_module.features.video_pass import Arrays
from xclip_module.interface import Corpus, Curve, Video
from xclip_module.moments.tracks import TEMPORAL
from xclip_module.run.folder import Run
from xclip_module.tasks.encode import of_all_videos
from xclip_module.tasks.localisation.load import LocalisationData
from xclip_module.tasks.localisation.scorers import BACKGROUND, Scorer

log = logging.getLogger(__name__)


class LocalisationScores(NamedTuple):
    """Curves in the order of the corpus, and the videos left out with the reason.

    prompt_sets: the same curves by further set of sentences.  temporal: those of a head's temporal network.
    """

    curves: list[Curve]
    prompt_sets: dict[str, list[Curve]]
    skipped: dict[str, str]
    temporal: list[Curve] | None = None


def score(
    loaded: LocalisationData, scorer: Scorer, run: Run, *, section: DataConfig, model: ModelConfig, store: FeatureStore
) -> LocalisationScores:
    """Curves of all videos of the splits to be scored: stored features where there are, else one pass over the file.

    Every process takes its share of the videos and gets everyone's curves. Raises DataError for the first video that
    cannot be read, unless `data.skip_unreadable` is set.
    """
    videos, device = loaded.videos, run.world.device
    if run.world.is_main:
        _warn_of_gaps(loaded.corpus, videos)
    encoding = scorer.encoder.encoding(section, store, frames_per_forward=model.frames_per_forward, device=device)
    curves, skipped = of_all_videos(
        videos,
        encoding,
        lambda video, stored: curve_of(video.id, stored, scorer, device),
        run=run,
        # A video that is too short may be left out, as one that cannot be read may.
        check=lambda video, stored: scorer.encoder.windows_of(video.id, stored),
    )
    skipped |= {missing.id: missing.why for missing in loaded.corpus.missing}
    if not curves:
        reason = next(iter(skipped.values()), "none found")
        raise DataError("no video could be scored", section.video or section.root or section.name, reason)
    ordered = [curves[video.id] for video in videos if video.id in curves]
    # "" are the queries' own sentences; a prompt set may be called anything else.
    names = [name for name in scorer.rows if name != BACKGROUND]
    groups = {name: [of_group(curve, scorer.rows, name) for curve in ordered] for name in names}
    return LocalisationScores(groups.pop(""), groups, skipped, temporal=groups.pop(TEMPORAL, None))


def curve_of(video: str, stored: Arrays, scorer: Scorer, device: torch.device) -> Curve:
    """The curve of one video from its stored features."""
    times, rows = scorer.encoder.windows_of(video, stored)
    scores = scorer.scores(stored, rows=rows, device=device, video=video)
    check_finite(scores, video)
    return Curve(video, times, scores, float(stored["duration"]))


def settings_of(
    loaded: LocalisationData, scorer: Scorer, *, section: DataConfig, model: ModelConfig, seed: int
) -> dict[str, Any]:
    """What the environment report adds to machine and versions: the batch and clip settings of the run."""
    encoder = scorer.encoder
    return {
        "data": loaded.corpus.name,
        "weights": model.weights,
        "weights_digest": encoder.model.digest(),
        "features_digest": encoder.model.stored_digest(),
        "model": encoder.model.protocol,
        "precision": encoder.precision,
        "attention": model.attention,
        "seed": seed,
        **encoder.sampling._asdict(),
        "head": model.head or "none",
        "word_slots": scorer.word_slots,
        "picture_size": encoder.model.picture.size,
        "crop": section.crop,
        "decoder": section.decoder,
        "frames_per_forward": model.frames_per_forward,
        **scorer.origin.settings,
    }


def _warn_of_gaps(corpus: Corpus, videos: Sequence[Video]) -> None:
    """Says which videos are left out, and which are scored without their phases or tools."""
    for why in dict.fromkeys(missing.why for missing in corpus.missing):
        log.warning("left out, %s: %s", why, ", ".join(missing.id for missing in corpus.missing if missing.why == why))
    for kind in ("phase", "tool"):
        names = {query.name for query in corpus.queries if query.kind == kind}
        lacking = [video.id for video in videos if names - set(corpus.moments.get(video.id, {}))]
        if lacking:
            log.warning("scored without %s labels, there is no such file: %s", kind, ", ".join(lacking))


def of_group(curve: Curve, rows: Mapping[str, slice], name: str) -> Curve:
    """The curve of one group of sentences, with the background's as one row."""
    if BACKGROUND not in rows:
        return curve._replace(scores=curve.scores[rows[name]])
    others = curve.scores[rows[BACKGROUND]].astype(np.float64)
    # log of the mean exponential, with the largest taken out first so that no exponential overflows.
    top = others.max(axis=0)
    mean = top + np.log(np.exp(others - top).mean(axis=0))
    return curve._replace(scores=curve.scores[rows[name]], background=mean)
