"""Every text against every video: embeddings of both, and the matrix of their scores.

Q texts, C videos, W word slots, D width.
"""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from xclip_module.config import DataConfig, ModelConfig
from xclip_module.evaluation.retrieval_scoring import facts_line, score_matrix, two_stage
from xclip_module.features.store import FeatureStore
from xclip_module.interface import Embeddings
from xclip_module.run.distributed import World
from xclip_module.run.folder import Run
from xclip_module.tasks.encode import Encoding, in_precision, of_all_videos, reading_of, stored_key
from xclip_module.tasks.retrieval.clips import ClipEncoder, joined
from xclip_module.tasks.retrieval.load import Gallery, videos_of
from xclip_module.tasks.weights import Origin, tokenise
from xclip_module.video.reading import Reading

_TEXTS_PER_FORWARD = 256

log = logging.getLogger(__name__)


class PairScorer(NamedTuple):
    """A model that scores texts against clips; section: which weights, and how their words are read."""

    encoder: ClipEncoder
    section: ModelConfig
    is_untrained: bool
    origin: Origin

    def embed_texts(self, texts: Sequence[str], device: torch.device) -> Embeddings:
        """All texts on the CPU: pooled [Q, D], tokens [Q, W, D]; how many were too long stands in the log."""
        tokens = tokenise(self.section, self.encoder.model, texts)
        encode = in_precision(self.encoder.model.encode_text, self.encoder.precision, device)
        batches = zip(tokens.input_ids.split(_TEXTS_PER_FORWARD), tokens.mask.split(_TEXTS_PER_FORWARD), strict=True)
        encoded = (encode(ids.to(device), mask.to(device)) for ids, mask in batches)
        return joined([Embeddings(*(field.cpu() for field in batch)) for batch in encoded])


class SplitScores(NamedTuple):
    """One split: what could be scored, the scores [Q, C], and of two-stage scoring what the results say of it."""

    gallery: Gallery
    similarity: np.ndarray
    two_stage: dict[str, Any] | None


def reading_for(scorer: PairScorer, data: DataConfig) -> Reading:
    """How the videos are read."""
    encoder = scorer.encoder
    batch = scorer.section.frames_per_forward
    reading = reading_of(data, fps=1.0, size=encoder.model.picture.size, batch=batch)
    return dataclasses.replace(reading, choice=encoder.choice)


def score_gallery(
    scorer: PairScorer, gallery: Gallery, run: Run, *, data: DataConfig, store: FeatureStore, keep: int, seed: int
) -> SplitScores:
    """The scores of one split, over the videos that can be read; keep, seed as in `matrix_of`.

    Every process takes its share of the videos and gets everyone's. Raises DataError for a video that cannot be read,
    unless `data.skip_unreadable`.
    """
    run.status.update(phase=f"videos of {gallery.split.split}")
    encoder, device = scorer.encoder, run.world.device
    encoding = Encoding(
        encode=encoder.encode(device),
        key=stored_key(encoder.model, encoder.precision),
        reading=reading_for(scorer, data),
        store=store,
        skip_unreadable=data.skip_unreadable,
    )
    arrays, skipped = of_all_videos(videos_of(gallery.split), encoding, lambda video, stored: stored, run=run)
    gallery = gallery.without(skipped) if skipped else gallery
    video = encoder.embed([arrays[name] for name in gallery.split.videos], device)
    text = scorer.embed_texts(gallery.split.texts, device)
    run.status.update(phase=f"scores of {gallery.split.split}")
    return SplitScores(gallery, *matrix_of(scorer, text, video, keep=keep, seed=seed, world=run.world))


def matrix_of(
    scorer: PairScorer, text: Embeddings, video: Embeddings, *, keep: int, seed: int, world: World
) -> tuple[np.ndarray, dict[str, Any] | None]:
    """Scores of every text for every video, the same on every process, and of two-stage scoring how it went.

    keep: candidates that are scored exactly, 0 = all pairs.  seed: of the texts on which recall is measured.
    """
    similarity = scorer.encoder.model.similarity
    if not keep:
        return score_matrix(text, video, similarity, world=world), None
    staged = two_stage(text, video, similarity, keep=keep, world=world, seed=seed)
    facts, texts, videos = staged.facts, staged.facts.t2v, staged.facts.v2t
    log.info("%s", facts_line(facts))
    assert texts is not None, "recall was asked for"
    assert videos is not None, "recall was asked for"
    return staged.matrix, {
        "keep": facts.keep,
        "exact_share": facts.exact_share,
        "sampled_texts": texts.queries,
        "recall@1": texts.at_1,
        "recall@10": texts.at_10,
        "v2t recall@1": videos.at_1,
        "v2t recall@10": videos.at_10,
    }


def settings_of(scorer: PairScorer, data: DataConfig, *, seed: int) -> dict[str, Any]:
    """What the environment report adds to machine and versions."""
    encoder, section = scorer.encoder, scorer.section
    return {
        "data": data.name,
        "weights": section.weights,
        "weights_digest": encoder.model.digest(),
        "features_digest": encoder.model.stored_digest(),
        "model": encoder.model.protocol,
        "precision": encoder.precision,
        "attention": section.attention,
        "seed": seed,
        "frames": encoder.choice.protocol,
        "word_slots": encoder.model.text_slots,
        "picture_size": encoder.model.picture.size,
        "crop": data.crop,
        "decoder": data.decoder,
        **scorer.origin.settings,
    }
