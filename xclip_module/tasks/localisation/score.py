"""The composition root: config sections to models, corpora and curves."""

import contextlib
import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from xclip_module.config import Config, nearest
from xclip_module.datasets.catalogue import choose_sampling, load_corpus
from xclip_module.errors import ConfigError, DataError
from xclip_module.features.encoding import encode_clips, encode_frames
from xclip_module.features.scoring import check_finite, score_stored
from xclip_module.features.store import FeatureStore
from xclip_module.features.video_pass import Arrays, Encode, feature_pass
from xclip_module.interface import Corpus, Curve, Embeddings, Sampling, Video, VideoTextModel, clip_rows, curve_times
from xclip_module.models import load_checkpoint, load_untrained
from xclip_module.models.head import Head
from xclip_module.moments.tracks import PROCEDURE, QUERY_SET, SIMILARITY, TEMPORAL, TRACKS, has_query_set
from xclip_module.run import distributed, precision
from xclip_module.run.distributed import World
from xclip_module.run.launch import Run
from xclip_module.run.progress import Progress
from xclip_module.tasks.localisation import head as heads
from xclip_module.tasks.localisation.head import Probe
from xclip_module.tasks.sentences import BACKGROUND, SHIPPED, UNTRAINED, Queries, place_of, read_queries
from xclip_module.video.reading import Reading

log = logging.getLogger(__name__)


class Setup(NamedTuple):
    """Everything that a scoring pass needs, on this process's device.

    text: of all sentences; None where a head scores.  rows: which scores are those of the queries (""), of each further
    prompt set, of the background, and of a head's temporal network.
    """

    corpus: Corpus
    model: VideoTextModel
    text: Embeddings | None
    rows: Mapping[str, slice]
    sampling: Sampling
    precision: str
    is_untrained: bool
    probe: Probe | None = None


class Scored(NamedTuple):
    """Curves in the order of the corpus, the same by further prompt set, and the videos left out with the reason.

    temporal: the curves of a head's temporal network.
    """

    curves: list[Curve]
    sets: dict[str, list[Curve]]
    skipped: dict[str, str]
    temporal: list[Curve] | None = None


def set_up(config: Config, run: Run) -> Setup:
    """Corpus, model and encoded queries of a run, in that order, so that cheap mistakes show first."""
    corpus, head = load_asked(config)
    model = build_model(config, run.world)
    if head:
        config = heads.with_sampling(config, head)
        probe = heads.fit_to(config, corpus, model, sampling_of(config, model), head)
        return probed(config, corpus, model, probe, run.world)
    return encode_queries(config, corpus, model, read_queries(config, corpus, model), run.world)


def load_asked(config: Config) -> tuple[Corpus, Head | None]:
    """The data set with what is to be found in it, and the head that does where one is configured.

    Raises ConfigError, DataError or WeightsError for what cannot be asked.
    """
    head = heads.read_head(config)
    corpus = heads.load_queries(config.data, head) if head else load_corpus(config.data)
    check_track(config, corpus, has_temporal=head is not None and head.temporal is not None)
    return corpus, head


def probed(config: Config, corpus: Corpus, model: VideoTextModel, probe: Probe | None, world: World) -> Setup:
    """What scoring with a head needs; without one, what its features need."""
    chosen = precision.choose(config.run.precision, world.device)
    size = len(corpus.queries)
    rows = {"": slice(0, size)}
    if probe:
        probe = probe._replace(head=probe.head.to(world.device))
        rows |= {TEMPORAL: slice(size, 2 * size)} if probe.has_temporal else {}
    return Setup(corpus, model, None, rows, sampling_of(config, model), chosen, False, probe)


def check_track(config: Config, corpus: Corpus, *, has_temporal: bool = False) -> None:
    """Raises ConfigError for a track that these queries, or the head, have not."""
    tracks = available_tracks(corpus, has_temporal=has_temporal)
    if config.eval.track not in tracks:
        why = f"these queries have {', '.join(tracks)}"
        raise ConfigError(f"eval.track={config.eval.track}", why=why, attempt=f"--eval.track={tracks[-1]}")


def encode_queries(config: Config, corpus: Corpus, model: VideoTextModel, queries: Queries, world: World) -> Setup:
    """What scoring needs beside the videos, for the model's present weights."""
    sampling = sampling_of(config, model)
    chosen = precision.choose(config.run.precision, world.device)
    encode = in_precision(model.encode_text, chosen, world.device)
    text = encode(queries.tokens.input_ids.to(world.device), queries.tokens.mask.to(world.device))
    is_untrained = config.model.weights.startswith(UNTRAINED)
    return Setup(corpus, model, text, queries.rows, sampling, chosen, is_untrained)


def sampling_of(config: Config, model: VideoTextModel) -> Sampling:
    """How videos are cut for this model. Raises ConfigError for another number of frames than its checkpoint takes."""
    sampling = choose_sampling(config.data, clip_frames=model.clip_frames)
    if model.clip_frames not in (0, sampling.frames_per_clip):
        raise ConfigError(
            f"data.frames_per_clip={sampling.frames_per_clip}",
            why=f"{config.model.weights} takes exactly {model.clip_frames} frames a clip",
            attempt=f"--data.frames_per_clip={model.clip_frames}",
        )
    return sampling


def available_tracks(corpus: Corpus, *, has_temporal: bool = False) -> tuple[str, ...]:
    """The tracks that mean something for these queries; `similarity-only` always does."""
    kinds = [query.kind for query in corpus.queries]
    present = {SIMILARITY: True, QUERY_SET: has_query_set(kinds), TEMPORAL: has_temporal}
    present[PROCEDURE] = bool(corpus.orders) and "phase" in kinds
    return tuple(track for track in TRACKS if present[track])


def build_model(config: Config, world: World) -> VideoTextModel:
    """The configured weights on this process's device."""
    section, place = config.model, place_of(config.model.weights)
    if Path(place).resolve() == Path(SHIPPED) and (config.data.video or config.data.name != "demo"):
        attempt = "--model.weights=openai/clip-vit-base-patch32"
        log.warning("%s are the demo's weights: they know drawn pictures only; try: %s", section.weights, attempt)
    if section.weights.startswith(UNTRAINED):
        model: Any = load_untrained(
            Path(place),
            seed=config.run.seed,
            family=section.family,
            header=section.header,
            max_words=section.max_words,
            padding=section.padding,
            pooling=section.pooling,
            attention=section.attention,
        )
    else:
        # Plain CLIP leaves the number of slots open; then the clip decides.
        frames = choose_sampling(config.data, clip_frames=0).frames_per_clip
        model = load_checkpoint(
            place,
            family=section.family,
            header=section.header,
            max_words=section.max_words,
            max_frames=frames,
            padding=section.padding,
            pooling=section.pooling,
            attention=section.attention,
        )
    return model.to(world.device)


def score_videos(config: Config, setup: Setup, run: Run) -> Scored:
    """Curves of all videos of the splits to be scored: stored features where there are, else one pass over the file.

    Every process takes its share of the videos and gets everyone's curves. Raises DataError for the first video that
    cannot be read, unless `data.skip_unreadable` is set.
    """
    videos = [video for split in scored_splits(config, setup.corpus) for video in setup.corpus.of_split(split)]
    if run.world.is_main:
        _warn_of_gaps(setup.corpus, videos)
    skipped: dict[str, str] = {}
    curves = []
    mine = distributed.shard(videos, run.world)
    with contextlib.closing(stored_videos(config, setup, mine, run, skipped)) as passing:
        for video, stored in passing:
            curves.append(curve_of(video.id, stored, setup, run.world.device))
    shares = distributed.gather((curves, skipped), run.world)
    found = {curve.video: curve for share, _ in shares for curve in share}
    left_out = {name: reason for _, share in shares for name, reason in share.items()}
    left_out |= {one.id: one.why for one in setup.corpus.missing}
    if not found:
        reason = next(iter(left_out.values()), "none found")
        raise DataError("no video could be scored", config.data.video or config.data.root or config.data.name, reason)
    whole = [found[video.id] for video in videos if video.id in found]
    groups = {name: [_of_rows(curve, setup.rows, name) for curve in whole] for name in setup.rows if name != BACKGROUND}
    return Scored(groups.pop(""), groups, left_out, temporal=groups.pop(TEMPORAL, None))


def stored_videos(
    config: Config, setup: Setup, videos: Sequence[Video], run: Run, skipped: dict[str, str]
) -> Generator[tuple[Video, Arrays], None, None]:
    """Each video with its stored features, encoded first where there are none; to be closed after use.

    skipped: takes up the videos that cannot be read, where `data.skip_unreadable` allows it; else DataError.
    """
    store = FeatureStore(Path(config.data.features or Path(config.run.root) / "features"))
    reading = reading_of(config, fps=setup.sampling.fps, size=setup.model.picture.size)
    encode, key = encoder(config, setup, run.world.device), _stored_key(setup)
    with (
        Progress(len(videos), name="videos", unit="videos", is_shown=run.world.is_main) as progress,
        # Closed here and not some time later: threads that decode while the interpreter goes down abort it.
        contextlib.closing(
            feature_pass(videos, encode, store=store, key=key, reading=reading, progress=progress)
        ) as passing,
    ):
        for video, stored in passing:
            try:
                if isinstance(stored, DataError):
                    raise stored
                windows_of(video.id, stored, setup.sampling)
            except DataError as error:
                if not config.data.skip_unreadable:
                    raise
                log.warning("left out: %s", error)
                skipped[video.id] = str(error)
            else:
                yield video, stored


def reading_of(config: Config, *, fps: float, size: int) -> Reading:
    """How files are read: `fps` pictures a second of `size` pixels a side, the rest as configured."""
    return Reading(
        fps=fps,
        size=size,
        crop=config.data.crop,
        batch=config.model.frames_per_forward,
        decoder=config.data.decoder,
        threads=config.data.decode_threads,
        timeout_seconds=config.data.decode_timeout_seconds,
    )


def scored_splits(config: Config, corpus: Corpus) -> tuple[str, ...]:
    """The configured splits that the data set has, each once; the only one of a data set without splits.

    A split whose videos are all missing stays in. One that a data set may lack, such as the val of 40/40, does not.
    """
    present = {video.split for video in corpus.videos} | {one.split for one in corpus.missing}
    if present == {"all"}:
        return ("all",)
    for split in config.data.evaluate:
        if split not in {"train", "val", "test"}:
            why = f"{corpus.name} has splits; {nearest(split, sorted(present))}"
            raise ConfigError(f"data.evaluate={split}", why=why, attempt="--data.evaluate=val,test")
    chosen = tuple(dict.fromkeys(split for split in config.data.evaluate if split in present))
    if not chosen:
        why = f"found splits {', '.join(sorted(present))}"
        raise ConfigError(f"data.evaluate={','.join(config.data.evaluate)}", why=why, attempt="--data.evaluate=test")
    return chosen


def _warn_of_gaps(corpus: Corpus, videos: Sequence[Video]) -> None:
    """Says which videos are left out, and which are scored without their phases or tools."""
    for why in dict.fromkeys(one.why for one in corpus.missing):
        log.warning("left out, %s: %s", why, ", ".join(one.id for one in corpus.missing if one.why == why))
    for kind in ("phase", "tool"):
        names = {query.name for query in corpus.queries if query.kind == kind}
        lacking = [video.id for video in videos if names - set(corpus.moments.get(video.id, {}))]
        if lacking:
            log.warning("scored without %s labels, there is no such file: %s", kind, ", ".join(lacking))


def settings(config: Config, setup: Setup) -> dict[str, Any]:
    """What the environment report adds to machine and versions: the batch and clip settings of the run."""
    return {
        "data": setup.corpus.name,
        "weights": config.model.weights,
        "weights_digest": setup.model.digest(),
        "features_digest": setup.model.stored_digest(),
        "model": setup.model.protocol,
        "precision": setup.precision,
        "attention": config.model.attention,
        "seed": config.run.seed,
        **setup.sampling._asdict(),
        "head": config.model.head or "none",
        "word_slots": 0 if setup.text is None else setup.text.tokens.shape[1],
        "picture_size": setup.model.picture.size,
        "crop": config.data.crop,
        "decoder": config.data.decoder,
        "frames_per_forward": config.model.frames_per_forward,
    }


def _of_rows(curve: Curve, rows: Mapping[str, slice], name: str) -> Curve:
    """The curve of one group of sentences, with the background's as one row."""
    if BACKGROUND not in rows:
        return curve._replace(scores=curve.scores[rows[name]])
    others = curve.scores[rows[BACKGROUND]].astype(np.float64)
    top = others.max(axis=0)
    mean = top + np.log(np.exp(others - top).mean(axis=0))
    return curve._replace(scores=curve.scores[rows[name]], background=mean)


def encoder(config: Config, setup: Setup, device: torch.device) -> Encode:
    """What turns a video's frames into the arrays that the store keeps."""
    model, sampling = setup.model, setup.sampling

    def frames(batches: Iterator[Tensor], count: int, duration: float, video: str) -> dict[str, np.ndarray]:
        # Refuses a video shorter than a clip before the work.
        clip_rows(np.zeros(1), count, sampling, video=video, duration=duration)
        return encode_frames(batches, model.encode_frames, picture=model.picture, device=device, video=video)

    def clips(batches: Iterator[Tensor], count: int, duration: float, video: str) -> dict[str, np.ndarray]:
        times = curve_times(duration, sampling.stride_seconds)
        rows = clip_rows(times, count, sampling, video=video, duration=duration)
        return encode_clips(
            batches,
            model.encode_video,
            rows=rows,
            clips_per_forward=max(1, config.model.frames_per_forward // sampling.frames_per_clip),
            picture=model.picture,
            device=device,
            video=video,
        )

    return in_precision(frames if model.reuses_frames else clips, setup.precision, device)


def _stored_key(setup: Setup) -> dict[str, Any]:
    """What stored arrays depend on beside the file and its reading."""
    key = {"weights": setup.model.stored_digest(), "picture": list(setup.model.picture), "precision": setup.precision}
    return key if setup.model.reuses_frames else {**key, "clips": list(setup.sampling)}


def curve_of(video: str, stored: Mapping[str, np.ndarray], setup: Setup, device: torch.device) -> Curve:
    """The curve of one video from its stored features."""
    times, rows = windows_of(video, stored, setup.sampling)
    if setup.probe:
        scores = setup.probe.scores(stored, setup.model, rows=rows, device=device, video=video)
    else:
        assert setup.text is not None, "without a head, sentences score"
        scores = score_stored(stored, setup.text, setup.model, rows=rows, device=device)
    check_finite(scores, video)
    return Curve(video, times, scores, float(stored["duration"]))


def windows_of(video: str, stored: Mapping[str, np.ndarray], sampling: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """Times [M] of a video's windows, and their rows of the frame grid [M, F]. Raises DataError for a short video."""
    duration = float(stored["duration"])
    times = curve_times(duration, sampling.stride_seconds)
    return times, clip_rows(times, int(stored["frames"]), sampling, video=video, duration=duration)


def in_precision(function: Callable, chosen: str, device: torch.device) -> Callable:
    """`function` with its towers in the chosen precision; a whole pass at once casts the weights only once."""

    def call(*arguments: Any) -> Any:
        with torch.inference_mode(), precision.autocast(chosen, device):
            return function(*arguments)

    return call
