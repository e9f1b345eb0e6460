"""Text-video retrieval from config to similarity matrix: a benchmark's pairs, their clips, and every score.

Q texts, C videos, T frames of a stored clip, F frame slots, D width.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from xclip_module.config import Config, DataConfig
from xclip_module.datasets.catalogue import choose_sampling
from xclip_module.datasets.retrieval.benchmarks import BENCHMARKS, RetrievalSplit, find_benchmark
from xclip_module.datasets.retrieval.benchmarks import load_split as read_split
from xclip_module.datasets.retrieval.video_index import index_videos
from xclip_module.errors import ConfigError, DataError
from xclip_module.evaluation import retrieval
from xclip_module.evaluation.retrieval_scoring import facts_line, score_shared, two_stage
from xclip_module.features.encoding import encode_frames, to_pixels
from xclip_module.features.store import FeatureStore
from xclip_module.features.video_pass import Arrays, Encode, feature_pass
from xclip_module.interface import Embeddings, Video, VideoTextModel
from xclip_module.run import distributed, precision
from xclip_module.run.distributed import World
from xclip_module.run.launch import Run
from xclip_module.run.progress import Progress
from xclip_module.sections import AUTO
from xclip_module.tasks.localisation import score as assemble
from xclip_module.tasks.sentences import tokenise
from xclip_module.video.frame_choice import FrameChoice
from xclip_module.video.reading import Reading

_TEXTS_PER_FORWARD = 256
_CLIPS_PER_PASS = 512

log = logging.getLogger(__name__)


class Gallery(NamedTuple):
    """A split as it is scored, and how much of it that is.

    of_texts, of_videos: how many there should be.  skipped: video -> why it takes no part.
    """

    split: RetrievalSplit
    of_texts: int
    of_videos: int
    skipped: dict[str, str]

    def without(self, unreadable: dict[str, str]) -> "Gallery":
        """Without videos that turned out to be unreadable, and their texts. Raises DataError when nothing is left."""
        left = {name: path for name, path in self.split.files.items() if name not in unreadable}
        if not left:
            raise DataError("no video could be scored", self.split.name, next(iter(unreadable.values()), "none found"))
        kept = self.split._replace(files=left).only_found()
        return self._replace(split=kept, skipped=self.skipped | unreadable)


class Matrix(NamedTuple):
    """Scores [Q, C], and of two-stage scoring what the results say of it."""

    similarity: np.ndarray
    two_stage: dict[str, Any] | None


def is_retrieval(data: DataConfig) -> bool:
    """Whether the data set is a retrieval benchmark."""
    return not data.video and data.name in BENCHMARKS


def load_gallery(config: Config, split: str) -> Gallery:
    """One split. Raises ConfigError, or DataError for videos that are missing unless `data.skip_unreadable`."""
    data = config.data
    for name, value in (
        *(("data.queries", data.queries), ("model.head", config.model.head)),
        *(("eval.background", config.eval.background), ("eval.prompt_sets", config.eval.prompt_sets)),
    ):
        if value:
            why = f"{data.name} has its own sentences"
            raise ConfigError(f"{name} with data.name={data.name}", why=why, attempt=f"leave {name} empty")
    if not data.root:
        raise ConfigError(
            f"data.name={data.name} needs its videos", attempt="--data.root=FOLDER --data.annotations=FOLDER"
        )
    annotations = Path(data.annotations or data.root)
    found = read_split(data.name, split, annotations=annotations, videos=index_videos(Path(data.root)))
    if found.missing and not data.skip_unreadable:
        shown = ", ".join(found.missing[:5]) + " …" * (len(found.missing) > 5)
        why = f"{len(found.missing)} of {len(found.videos)} videos of {data.name} {split} missing"
        check = f"python -m xclip_module.datasets.retrieval_check {data.name} --annotations={annotations}"
        attempt = f"{check} --videos={data.root} lists them, or "
        raise DataError(why, data.root, shown, f"{attempt}--data.skip_unreadable=true")
    gallery = Gallery(found, len(found.texts), len(found.videos), {})
    return gallery.without(dict.fromkeys(found.missing, "no video")) if found.missing else gallery


def load_split(config: Config, split: str) -> RetrievalSplit:
    """The videos and sentences of a split that can be used; see `load_gallery`."""
    return load_gallery(config, split).split


def reported_split(config: Config) -> str:
    """The split whose numbers papers report."""
    return find_benchmark(config.data.name).reported


def videos_of(split: RetrievalSplit) -> tuple[Video, ...]:
    """The videos of a split, in its order."""
    return tuple(
        Video(name, split.files[name], split.split, span=span)
        for name, span in zip(split.videos, split.spans, strict=True)
    )


def choose_frames(config: Config, model: VideoTextModel) -> FrameChoice:
    """Which frames are a video's clip. Raises ConfigError for a number of frames that the weights do not take."""
    data = config.data
    rule = data.frame_rule
    if rule == AUTO:
        # ms-xclip knows no empty slots, which a short video leaves on a grid of seconds.
        rule = "spread" if data.name.endswith("-mmaction2") or model.family == "ms-xclip" else "grid"
    if rule == "grid" and model.family == "ms-xclip":
        why = f"{config.model.weights} knows no empty slots, which a short video leaves"
        raise ConfigError("data.frame_rule=grid", why=why, attempt="--data.frame_rule=spread")
    frames = choose_sampling(data, clip_frames=model.clip_frames).frames_per_clip
    if model.clip_frames not in (0, frames):
        why = f"{config.model.weights} takes exactly {model.clip_frames} frame slots"
        raise ConfigError(
            f"data.frames_per_clip={frames}", why=why, attempt=f"--data.frames_per_clip={model.clip_frames}"
        )
    return FrameChoice(rule, frames)


def reading_of(config: Config, model: VideoTextModel) -> Reading:
    """How the videos are read."""
    reading = assemble.reading_of(config, fps=1.0, size=model.picture.size)
    return dataclasses.replace(reading, choice=choose_frames(config, model))


def embed_texts(config: Config, model: VideoTextModel, texts: Sequence[str], world: World) -> Embeddings:
    """All texts on the CPU: pooled [Q, D], tokens [Q, W, D]; how many were too long stands in the log."""
    tokens = tokenise(config, model, texts)
    encode = assemble.in_precision(
        model.encode_text, precision.choose(config.run.precision, world.device), world.device
    )
    parts = [
        Embeddings(*(x.cpu() for x in encode(ids.to(world.device), mask.to(world.device))))
        for ids, mask in zip(
            tokens.input_ids.split(_TEXTS_PER_FORWARD), tokens.mask.split(_TEXTS_PER_FORWARD), strict=True
        )
    ]
    return joined(parts)


def embed_videos(config: Config, model: VideoTextModel, gallery: Gallery, run: Run) -> tuple[Gallery, Embeddings]:
    """The clips of all videos on the CPU, from the store where they are; and the gallery of those that can be read.

    Every process takes its share of the videos and gets everyone's. Raises DataError for one that cannot be read,
    unless `data.skip_unreadable`.
    """
    reading, store = (
        reading_of(config, model),
        FeatureStore(Path(config.data.features or Path(config.run.root) / "features")),
    )
    mine = distributed.shard(videos_of(gallery.split), run.world)
    found: dict[str, Arrays] = {}
    skipped: dict[str, str] = {}
    with (
        Progress(len(mine), name="videos", unit="videos", is_shown=run.world.is_main) as progress,
        contextlib.closing(
            feature_pass(
                mine,
                encoder(config, model, run.world.device),
                store=store,
                key=stored_key(config, model, run.world),
                reading=reading,
                progress=progress,
            )
        ) as passing,
    ):
        for video, stored in passing:
            if not isinstance(stored, DataError):
                found[video.id] = stored
            elif config.data.skip_unreadable:
                log.warning("left out: %s", stored)
                skipped[video.id] = str(stored)
            else:
                raise stored
    shares = distributed.gather((found, skipped), run.world)
    arrays = {name: stored for share, _ in shares for name, stored in share.items()}
    left_out = {name: why for _, share in shares for name, why in share.items()}
    gallery = gallery.without(left_out) if left_out else gallery
    ordered = [arrays[name] for name in gallery.split.videos]
    return gallery, embed_stored(ordered, model, choose_frames(config, model), run.world.device)


def stored_key(config: Config, model: VideoTextModel, world: World) -> dict[str, Any]:
    """What stored clips depend on beside the file and its reading."""
    chosen = precision.choose(config.run.precision, world.device)
    return {"weights": model.stored_digest(), "picture": list(model.picture), "precision": chosen}


def encoder(config: Config, model: VideoTextModel, device: torch.device) -> Encode:
    """What turns the chosen frames of a video into the arrays that the store keeps."""
    slots = choose_frames(config, model).frames

    def frames(batches: Iterator[Tensor], count: int, duration: float, video: str) -> Arrays:
        return encode_frames(batches, model.encode_frames, picture=model.picture, device=device, video=video)

    def clip(batches: Iterator[Tensor], count: int, duration: float, video: str) -> Arrays:
        pixels = to_pixels(torch.cat(list(batches)), model.picture, device)
        empty = pixels.new_zeros(slots - count, *pixels.shape[1:])
        mask = torch.arange(slots, device=device) < count
        found = model.encode_video(torch.cat([pixels, empty])[None], mask[None])
        return {
            "pooled": found.pooled.cpu().numpy(),
            "tokens": found.tokens.cpu().numpy(),
            "mask": found.mask.cpu().numpy(),
        }

    chosen = precision.choose(config.run.precision, device)
    return assemble.in_precision(frames if model.reuses_frames else clip, chosen, device)


@torch.inference_mode()
def embed_stored(
    arrays: Sequence[Arrays], model: VideoTextModel, choice: FrameChoice, device: torch.device
) -> Embeddings:
    """Clips on the CPU from their stored arrays; empty slots hold the feature of a zero picture, as released."""
    if not model.reuses_frames:
        stacked = (torch.from_numpy(np.concatenate([one[name] for one in arrays])) for name in Embeddings._fields)
        return Embeddings(*stacked)
    side = model.picture.size
    empty = model.encode_frames(torch.zeros(1, 3, side, side, device=device)).float()[0]
    parts = []
    for start in range(0, len(arrays), _CLIPS_PER_PASS):
        some = [torch.from_numpy(one["features"]) for one in arrays[start : start + _CLIPS_PER_PASS]]
        features = empty.repeat(len(some), choice.frames, 1)
        mask = torch.zeros(len(some), choice.frames, dtype=torch.bool, device=device)
        for row, own in enumerate(some):
            features[row, : len(own)], mask[row, : len(own)] = own.to(device).float(), True
        parts.append(Embeddings(*(x.cpu() for x in model.embed_clips(features, mask))))
    return joined(parts)


def similarity(config: Config, model: VideoTextModel, text: Embeddings, video: Embeddings, world: World) -> Matrix:
    """Scores of every text for every video, the same on every process; exact, or in two stages where that is asked."""
    if not config.eval.two_stage:
        return Matrix(score_shared(text, video, model.similarity, world=world), None)
    found = two_stage(text, video, model.similarity, keep=config.eval.two_stage, world=world, seed=config.run.seed)
    log.info("%s", facts_line(found.facts))
    facts, texts, videos = found.facts, found.facts.t2v, found.facts.v2t
    assert texts is not None, "recall was asked for"
    assert videos is not None, "recall was asked for"
    measured = {
        "sampled_texts": texts.queries,
        "recall@1": texts.at_1,
        "recall@10": texts.at_10,
        "v2t recall@1": videos.at_1,
        "v2t recall@10": videos.at_10,
    }
    return Matrix(found.matrix, {"keep": facts.keep, "exact_share": facts.exact_share, **measured})


def evaluated(scores: np.ndarray, split: RetrievalSplit, protocol: str) -> dict[str, float]:
    """t2v/R@1 … v2t/MnR."""
    return retrieval.retrieval_metrics(scores, split.text_to_video, protocol=protocol)


def joined(parts: Sequence[Embeddings]) -> Embeddings:
    """Rows of several embeddings, one after the other."""
    return Embeddings(*(torch.cat(part) for part in zip(*parts, strict=True)))
