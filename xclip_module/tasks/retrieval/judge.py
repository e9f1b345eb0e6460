"""From matrices to numbers: ranks of both directions, chance, and what metrics.json holds."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from xclip_module.config import EvalConfig
from xclip_module.evaluation import retrieval
from xclip_module.reporting.training_facts import kept_step
from xclip_module.tasks.retrieval.score import PairScorer, SplitScores


class RetrievalResults(NamedTuple):
    """metrics: what metrics.json holds."""

    metrics: dict[str, Any]


def judge(
    scorer: PairScorer, scores: Mapping[str, SplitScores], settings: Mapping[str, Any], judging: EvalConfig
) -> RetrievalResults:
    """Metrics of every split, and how they came about."""
    training = scorer.origin.training
    is_trained = training is not None and kept_step(training) > 0
    tuned = ", fine-tuned" if is_trained else ""
    keep = judging.two_stage
    galleries = [part.gallery for part in scores.values()]
    metrics = {
        "kind": "retrieval",
        "title": f"{'Fine-tuned retrieval' if training else 'Retrieval'}: {settings['data']}",
        "untrained": scorer.is_untrained and not is_trained,
        "protocol": {
            "data": "; ".join(gallery.split.protocol for gallery in galleries),
            "annotations": ", ".join(path.name for path in galleries[0].split.sources),
            "model": settings["model"],
            "weights": f"{settings['weights']}{tuned} ({settings['weights_digest'][:12]})",
            "frames": settings["frames"],
            "words": settings["word_slots"],
            "picture": f"{settings['picture_size']} px, crop {settings['crop']}",
            "precision": settings["precision"],
            "scoring": f"two stages, {keep} videos a text exactly" if keep else "exact",
            "v2t": judging.v2t,
            "ties": "count against us",
        },
        "benchmark": settings["data"],
        "skipped": {video: why for gallery in galleries for video, why in gallery.skipped.items()},
        "splits": {split: _split(part, judging.v2t) for split, part in scores.items()},
        **({} if training is None else {"training": training}),
    }
    return RetrievalResults(metrics)


def _split(scores: SplitScores, protocol: str) -> dict[str, Any]:
    gallery, split = scores.gallery, scores.gallery.split
    return {
        "texts": len(split.texts),
        "videos": len(split.videos),
        "of_texts": gallery.of_texts,
        "of_videos": gallery.of_videos,
        "metrics": retrieval.retrieval_metrics(scores.similarity, split.text_to_video, protocol=protocol),
        "chance": retrieval.chance(split.text_to_video, len(split.videos), protocol=protocol),
        "two_stage": scores.two_stage,
    }
