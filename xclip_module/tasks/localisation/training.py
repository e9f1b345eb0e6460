"""Training on labelled operations: clips and sentences of the train split, whole videos of the val split."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from xclip_module.config import Config, EvalConfig, FinetuneConfig
from xclip_module.features.frame_cache import stored_side
from xclip_module.features.stored_frames import FrameStorage, batches_of, make_grid
from xclip_module.features.video_pass import Arrays
from xclip_module.interface import Corpus, Curve, Video, VideoTextModel
from xclip_module.run import distributed, precision
from xclip_module.run.distributed import World
from xclip_module.run.folder import Run
from xclip_module.tasks.encode import frame_store, reading_of
from xclip_module.tasks.localisation import scorers
from xclip_module.tasks.localisation.judge import Judge
from xclip_module.tasks.localisation.load import LocalisationData
from xclip_module.tasks.localisation.score import curve_of, of_group
from xclip_module.tasks.localisation.windows import WindowEncoder, sampling_of
from xclip_module.tasks.training_data import TrainingData, Validation
from xclip_module.tasks.weights import AS_CONFIGURED, tokenise
from xclip_module.training.batches.sampling_plan import Plan
from xclip_module.training.batches.training_set import training_set

# What is kept of each validation.
NUMBERS = ("AUROC", "AUPRC", "mAP@0.5", "R1@0.5", "mIoU")


def training_data(config: Config, loaded: LocalisationData, model: VideoTextModel, world: World) -> TrainingData:
    """Clips and sentences. Raises ConfigError or DataError for what cannot be trained on."""
    data, section, corpus = config.data, config.finetune, loaded.corpus
    sampling = sampling_of(data, model, weights=config.model.weights)
    stride = section.clip_stride_seconds or sampling.stride_seconds
    clips = training_set(corpus, texts=_texts(section, corpus), use_tools=section.use_tools, clip_stride_seconds=stride)
    store = frame_store(section, root=config.run.root)
    batch = config.model.frames_per_forward
    grid, side = make_grid(sampling, section.cache_fps), stored_side(model.picture.size, crop_scale=section.crop_scale)
    # Validation reads what scoring reads, so that its numbers are those of run_zeroshot with these weights.
    scoring = reading_of(data, fps=sampling.fps, size=model.picture.size, batch=batch)
    validated = tuple(video for video in corpus.of_split("val") if video.id in corpus.moments)
    encoder = WindowEncoder(model, sampling, precision.choose(config.run.precision, world.device))
    tokens = tokenise(config.model, model, clips.sentences)
    sentences = scorers.read_sentences(config.model, config.eval, corpus=corpus, model=model)
    return TrainingData(
        set=clips,
        tokens=tokens,
        picture=model.picture,
        place=FrameStorage(store, reading_of(data, fps=grid.fps, size=side, batch=batch), world, data.skip_unreadable),
        grid=grid,
        plan=partial(
            Plan,
            batch_size=section.batch_size,
            seed=config.run.seed,
            jitter_seconds=section.jitter_seconds,
            balance_phases=section.balance_phases,
            hard_negatives=section.hard_negatives,
            drop_last=section.drop_last,
        ),
        missing={missing.id: missing.why for missing in corpus.missing if missing.split == "train"},
        validation=Validation(
            split="val",
            videos=validated,
            place=FrameStorage(store, scoring, world, data.skip_unreadable),
            grid=make_grid(sampling, 0.0),
            measure=_WindowMeasure(corpus, encoder, sentences, config.eval, batch).numbers,
            digest=_truth_digest(corpus, validated),
            can_choose=True,
        ),
        scored=tuple(loaded.videos),
    )


@dataclasses.dataclass(frozen=True)
class _WindowMeasure:
    """Val numbers while the weights change: frames are decoded once, encoded and scored anew each time."""

    corpus: Corpus
    encoder: WindowEncoder
    sentences: scorers.Sentences
    evaluation: EvalConfig
    frames_per_forward: int

    def numbers(self, frames: Sequence[tuple[Video, Arrays]], run: Run) -> dict[str, float | None]:
        """The macro numbers of the run's track over all processes' videos, the same on every process.

        frames: this process's val videos with their pictures [N, 3, H, H] uint8 on the frame grid.
        """
        device = run.world.device
        scorer = scorers.with_sentences(
            self.encoder, self.sentences, device=device, is_untrained=False, origin=AS_CONFIGURED
        )
        share = [self._curve(scorer, video, arrays, run.world) for video, arrays in frames]
        curves = [curve for curves in distributed.gather(share, run.world) for curve in curves]
        judging = Judge(self.corpus, self.evaluation, self.encoder.sampling.stride_seconds)
        # By name, so that the number of processes decides nothing.
        answers = judging.answers(sorted(curves, key=lambda curve: curve.video), self.evaluation.track)
        macro = judging.summary(answers).macro
        return {name: macro.get(name) for name in NUMBERS}

    def _curve(self, scorer: scorers.SentenceScorer, video: Video, arrays: Arrays, world: World) -> Curve:
        pictures, duration = arrays["pictures"], float(arrays["duration"])
        encode = self.encoder.encode(frames_per_forward=self.frames_per_forward, device=world.device)
        encoded = encode(batches_of(pictures, self.frames_per_forward), len(pictures), duration, video.id)
        stored = {**encoded, "duration": arrays["duration"], "frames": arrays["frames"]}
        # The queries' own rows, against the background where one is asked for.
        return of_group(curve_of(video.id, stored, scorer, world.device), scorer.rows, "")


def _truth_digest(corpus: Corpus, videos: Sequence[Video]) -> str:
    """Changes with any video's file or length, sentence or moment: best steps of two val splits do not compare."""
    facts = [
        [video.id, video.source.stat().st_size if isinstance(video.source, Path) else 0, corpus.moments[video.id]]
        for video in videos
    ]
    text = json.dumps([facts, [query.text for query in corpus.queries]], sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _texts(section: FinetuneConfig, corpus: Corpus) -> dict[str, tuple[str, ...]]:
    """What every class may be called: its own sentence first, then those of further prompt sets."""
    further = scorers.read_prompt_sets("finetune.prompt_sets", section.prompt_sets, corpus).values()
    return {query.name: (query.text, *(texts[query.name] for texts in further)) for query in corpus.queries}
