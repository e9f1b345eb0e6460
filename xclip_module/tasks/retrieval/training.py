"""Training on pairs of sentence and video: all of a benchmark's train split, judged by recall on another split."""

import dataclasses
import logging
from collections.abc import Sequence

from xclip_module.config import Config
from xclip_module.datasets.retrieval.benchmarks import RetrievalSplit, find_benchmark
from xclip_module.features.frame_cache import stored_side
from xclip_module.features.stored_frames import ChosenGrid, Place
from xclip_module.features.validation_frames import batches_of
from xclip_module.features.video_pass import Arrays
from xclip_module.interface import Corpus, Missing, Video, VideoTextModel
from xclip_module.run import distributed
from xclip_module.run.distributed import World
from xclip_module.run.launch import Run
from xclip_module.tasks import sentences
from xclip_module.tasks.retrieval import score as retrieving
from xclip_module.tasks.retrieval import write as searching
from xclip_module.tasks.training_data import TrainingData, Validation, frame_store
from xclip_module.training.batches.pairs import PairPlan, PairSet, pair_set

log = logging.getLogger(__name__)


def validated_split(config: Config) -> str:
    """The split on which a training is judged: val; the reported one where there is no other to judge on.

    MSR-VTT has no val split, ActivityNet's is the reported one. The released code chooses its epoch on such a split;
    here validations on it choose nothing.
    """
    benchmark = find_benchmark(config.data.name)
    return "val" if "val" in benchmark.splits else benchmark.reported


def corpus_of(config: Config) -> Corpus:
    """The videos of all splits that a training and its evaluation need, without the sentences."""
    names = dict.fromkeys(("train", validated_split(config), *searching.scored_splits(config)))
    galleries = [retrieving.load_gallery(config, name) for name in names]
    return Corpus(
        name=config.data.name,
        videos=tuple(video for one in galleries for video in retrieving.videos_of(one.split)),
        queries=(),
        moments={},
        protocol="; ".join(one.split.protocol for one in galleries),
        missing=tuple(Missing(name, one.split.split, why) for one in galleries for name, why in one.skipped.items()),
    )


def load(config: Config, model: VideoTextModel, world: World) -> TrainingData:
    """Pairs and sentences. Raises ConfigError or DataError for what cannot be trained on.

    Differs: MMAction2 draws its training frames anew each time, one from each part of the video; here they are those
    of the evaluation, so that a video is decoded once.
    """
    gallery = retrieving.load_gallery(config, "train")
    found = pair_set(gallery.split.texts, gallery.split.text_to_video, retrieving.videos_of(gallery.split))
    judged = retrieving.load_split(config, validated_split(config))
    scored = [retrieving.load_split(config, name) for name in searching.scored_splits(config)]
    _warn_of_overlap(gallery.split, [judged, *scored])
    reading, choice = retrieving.reading_of(config, model), retrieving.choose_frames(config, model)
    side = stored_side(model.picture.size, crop_scale=config.finetune.crop_scale)
    place = Place(frame_store(config.finetune.cache, config.run.root), reading, world, config.data.skip_unreadable)
    return TrainingData(
        set=found,
        tokens=sentences.tokenise(config, model, found.sentences),
        picture=model.picture,
        place=place._replace(reading=dataclasses.replace(reading, size=side)),
        grid=ChosenGrid(choice),
        plan=lambda known: _plan(config, known),
        missing=gallery.skipped,
        validation=Validation(
            split=judged.split,
            videos=retrieving.videos_of(judged),
            place=place,
            grid=ChosenGrid(choice),
            measure=lambda frames, run: measure(config, model, judged, frames, run),
            digest=judged.file_digest,
            can_choose=judged.split != retrieving.reported_split(config),
        ),
        scored=tuple(video for split in scored for video in retrieving.videos_of(split)),
    )


def _warn_of_overlap(train: RetrievalSplit, judged: Sequence[RetrievalSplit]) -> None:
    """Says which videos are trained on and judged; a benchmark's own splits share none."""
    known = set(train.videos)
    for split in dict.fromkeys(one.split for one in judged):
        videos = next(one.videos for one in judged if one.split == split)
        if both := [name for name in videos if name in known]:
            shown = ", ".join(both[:5]) + " …" * (len(both) > 5)
            log.warning("%d of %d videos of %s are trained on as well: %s", len(both), len(videos), split, shown)


def measure(
    config: Config,
    model: VideoTextModel,
    split: RetrievalSplit,
    frames: Sequence[tuple[Video, Arrays]],
    run: Run,
) -> dict[str, float | None]:
    """t2v/R@1 … v2t/MnR over all processes' videos, the same on every process.

    frames: this process's videos with "pictures" [N, 3, H, H] uint8 of their chosen frames, exactly those that
    `retrieving.embed_videos` would decode, so that the numbers are those of run_zeroshot with these weights. Videos
    that nobody has take no part, nor do their texts.
    """
    world, size = run.world, config.model.frames_per_forward
    encode = retrieving.encoder(config, model, world.device)
    own = {
        video.id: encode(
            batches_of(arrays["pictures"], size), len(arrays["pictures"]), float(arrays["duration"]), video.id
        )
        for video, arrays in frames
    }
    found = {name: arrays for share in distributed.gather(own, world) for name, arrays in share.items()}
    left = split._replace(files={name: path for name, path in split.files.items() if name in found}).only_found()
    choice = retrieving.choose_frames(config, model)
    video = retrieving.embed_stored([found[name] for name in left.videos], model, choice, world.device)
    text = retrieving.embed_texts(config, model, left.texts, world)
    scores = retrieving.similarity(config, model, text, video, world).similarity
    return {**retrieving.evaluated(scores, left, config.eval.v2t)}


def _plan(config: Config, found: PairSet) -> PairPlan:
    section = config.finetune
    return PairPlan(
        found,
        batch_size=section.batch_size,
        seed=config.run.seed,
        one_sentence=section.one_sentence,
        drop_last=section.drop_last,
    )
