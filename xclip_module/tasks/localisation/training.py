"""Training on labelled operations: clips and sentences of the train split, whole videos of the val split."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from xclip_module.config import Config, DataConfig
from xclip_module.datasets.catalogue import load_corpus
from xclip_module.datasets.prompts import prompt_sets, read_prompts
from xclip_module.errors import ConfigError
from xclip_module.features.frame_cache import stored_side
from xclip_module.features.stored_frames import Place, make_grid
from xclip_module.features.video_pass import Arrays
from xclip_module.interface import Corpus, Video, VideoTextModel
from xclip_module.run.distributed import World
from xclip_module.run.launch import Run
from xclip_module.tasks import sentences
from xclip_module.tasks.localisation import score as assemble
from xclip_module.tasks.localisation.validation import validate
from xclip_module.tasks.training_data import TrainingData, Validation, frame_store
from xclip_module.training.batches.sampling_plan import Plan
from xclip_module.training.batches.training_set import TrainingSet, training_set


def with_every_split(data: DataConfig) -> DataConfig:
    """So that a missing training video is an error, or named, too."""
    return dataclasses.replace(data, evaluate=("train", "val", "test"))


def labelled_corpus(config: Config) -> Corpus:
    """The videos of all splits that have labels."""
    corpus = load_corpus(with_every_split(config.data))
    return corpus._replace(videos=tuple(video for video in corpus.videos if video.id in corpus.moments))


def load(config: Config, model: VideoTextModel, world: World) -> TrainingData:
    """Corpus, clips and sentences. Raises ConfigError or DataError for what cannot be trained on."""
    if config.data.video:
        why = "own recordings have no labels to learn from"
        raise ConfigError(f"data.video={config.data.video}", why=why, attempt="--data.name=cholec80 --data.root=FOLDER")
    corpus = load_corpus(with_every_split(config.data))
    assemble.check_track(config, corpus)
    scored = assemble.scored_splits(config, corpus)
    section, sampling = config.finetune, assemble.sampling_of(config, model)
    stride = section.clip_stride_seconds or sampling.stride_seconds
    found = training_set(corpus, texts=_texts(config, corpus), use_tools=section.use_tools, clip_stride_seconds=stride)
    grid, side = make_grid(sampling, section.cache_fps), stored_side(model.picture.size, crop_scale=section.crop_scale)
    reading = assemble.reading_of(config, fps=grid.fps, size=side)
    return TrainingData(
        set=found,
        tokens=sentences.tokenise(config, model, found.sentences),
        picture=model.picture,
        place=Place(frame_store(config.finetune.cache, config.run.root), reading, world, config.data.skip_unreadable),
        grid=grid,
        plan=lambda known: _plan(config, known),
        missing={one.id: one.why for one in corpus.missing if one.split == "train"},
        validation=_validation(config, corpus, model, world),
        scored=tuple(video for split in scored for video in corpus.of_split(split)),
    )


def _validation(config: Config, corpus: Corpus, model: VideoTextModel, world: World) -> Validation:
    sampling = assemble.sampling_of(config, model)
    reading = assemble.reading_of(config, fps=sampling.fps, size=model.picture.size)
    queries = sentences.read_queries(config, corpus, model)

    def measure(frames: Sequence[tuple[Video, Arrays]], run: Run) -> dict[str, float | None]:
        return validate(config, corpus, model, queries, frames, run)

    judged = tuple(video for video in corpus.of_split("val") if video.id in corpus.moments)
    return Validation(
        split="val",
        videos=judged,
        place=Place(frame_store(config.finetune.cache, config.run.root), reading, world, config.data.skip_unreadable),
        grid=make_grid(sampling, 0.0),
        measure=measure,
        digest=_truth_digest(corpus, judged),
        can_choose=True,
    )


def _truth_digest(corpus: Corpus, videos: Sequence[Video]) -> str:
    """Changes with any video's file or length, sentence or moment: best steps of two val splits do not compare."""
    known = [
        [video.id, video.source.stat().st_size if isinstance(video.source, Path) else 0, corpus.moments[video.id]]
        for video in videos
    ]
    text = json.dumps([known, [query.text for query in corpus.queries]], sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _texts(config: Config, corpus: Corpus) -> dict[str, tuple[str, ...]]:
    """What every class may be called: its own sentence first, then those of further prompt sets."""
    texts: dict[str, tuple[str, ...]] = {query.name: (query.text,) for query in corpus.queries}
    if not config.finetune.prompt_sets:
        return texts
    if any(query.kind == "free" for query in corpus.queries):
        why = "prompt sets are sentences for class names, these queries are their own sentences"
        raise ConfigError("finetune.prompt_sets", why=why, attempt="leave it empty")
    for path in prompt_sets(config.finetune.prompt_sets).values():
        more = read_prompts(path, tuple(texts))
        texts = {name: (*known, more[name]) for name, known in texts.items()}
    return texts


def _plan(config: Config, found: TrainingSet) -> Plan:
    section = config.finetune
    return Plan(
        found,
        batch_size=section.batch_size,
        seed=config.run.seed,
        jitter_seconds=section.jitter_seconds,
        balance_phases=section.balance_phases,
        hard_negatives=section.hard_negatives,
        drop_last=section.drop_last,
    )
