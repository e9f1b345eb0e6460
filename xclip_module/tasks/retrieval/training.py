"""Training on pairs of sentence and video: all of a benchmark's train split, judged by recall on another split."""

import dataclasses
import logging
from collections.abc import Sequence
from functools import partial

from xclip_module.config import Config
from xclip_module.datasets.retrieval.benchmarks import RetrievalSplit, find_benchmark
from xclip_module.evaluation import retrieval
from xclip_module.features.frame_cache import stored_side
from xclip_module.features.stored_frames import FrameStorage, batches_of
from xclip_module.features.video_pass import Arrays
from xclip_module.interface import Video, VideoTextModel
from xclip_module.run import distributed, precision
from xclip_module.run.distributed import World
from xclip_module.run.folder import Run
from xclip_module.tasks.encode import frame_store
from xclip_module.tasks.retrieval.clips import ChosenGrid, ClipEncoder, choose_frames
from xclip_module.tasks.retrieval.load import Galleries, scored_splits, validated_split, videos_of
from xclip_module.tasks.retrieval.score import PairScorer, matrix_of, reading_for
from xclip_module.tasks.training_data import TrainingData, Validation
from xclip_module.tasks.weights import AS_CONFIGURED, tokenise
from xclip_module.training.batches.pairs import PairPlan, pair_set

log = logging.getLogger(__name__)


def training_data(config: Config, galleries: Galleries, model: VideoTextModel, world: World) -> TrainingData:
    """Pairs and sentences. Raises ConfigError or DataError for what cannot be trained on.

    Differs: MMAction2 draws its training frames anew each time, one from each part of the video; here they are those
    of the evaluation, so that a video is decoded once.
    """
    data, section = config.data, config.finetune
    gallery = galleries["train"]
    pairs = pair_set(gallery.split.texts, gallery.split.text_to_video, videos_of(gallery.split))
    validated = galleries[validated_split(data.name)].split
    scored = [galleries[name].split for name in scored_splits(data)]
    _warn_of_overlap(gallery.split, [validated, *scored])
    choice = choose_frames(data, model, weights=config.model.weights)
    encoder = ClipEncoder(model, choice, precision.choose(config.run.precision, world.device))
    scorer = PairScorer(encoder, config.model, False, AS_CONFIGURED)
    # The evaluation's own reading, so that validation sees exactly the pixels that scoring would decode.
    reading = reading_for(scorer, data)
    store = frame_store(section, root=config.run.root)
    place = FrameStorage(store, reading, world, data.skip_unreadable)
    side = stored_side(model.picture.size, crop_scale=section.crop_scale)
    measure = _PairMeasure(scorer, validated, config.eval.two_stage, config.run.seed, config.eval.v2t)
    return TrainingData(
        set=pairs,
        tokens=tokenise(config.model, model, pairs.sentences),
        picture=model.picture,
        place=place._replace(reading=dataclasses.replace(reading, size=side)),
        grid=ChosenGrid(choice),
        plan=partial(
            PairPlan,
            batch_size=section.batch_size,
            seed=config.run.seed,
            one_sentence=section.one_sentence,
            drop_last=section.drop_last,
        ),
        missing=gallery.skipped,
        validation=Validation(
            split=validated.split,
            videos=videos_of(validated),
            place=place,
            grid=ChosenGrid(choice),
            measure=measure.numbers,
            digest=validated.file_digest,
            can_choose=validated.split != find_benchmark(data.name).reported,
        ),
        scored=tuple(video for split in scored for video in videos_of(split)),
    )


@dataclasses.dataclass(frozen=True)
class _PairMeasure:
    """Recall on a split while the weights change: frames are decoded once, encoded and scored anew each time.

    keep, seed: as in `matrix_of`.
    """

    scorer: PairScorer
    split: RetrievalSplit
    keep: int
    seed: int
    v2t: str

    def numbers(self, frames: Sequence[tuple[Video, Arrays]], run: Run) -> dict[str, float | None]:
        """t2v/R@1 … v2t/MnR over all processes' videos, the same on every process.

        frames: this process's videos with "pictures" [N, 3, H, H] uint8 of their chosen frames. Videos that nobody has
        take no part, nor do their texts.
        """
        world, encoder = run.world, self.scorer.encoder
        encode, size = encoder.encode(world.device), self.scorer.section.frames_per_forward
        share = {
            video.id: encode(
                batches_of(arrays["pictures"], size), len(arrays["pictures"]), float(arrays["duration"]), video.id
            )
            for video, arrays in frames
        }
        encoded = {name: arrays for part in distributed.gather(share, world) for name, arrays in part.items()}
        files = {name: path for name, path in self.split.files.items() if name in encoded}
        left = self.split._replace(files=files).only_found()
        video = encoder.embed([encoded[name] for name in left.videos], world.device)
        text = self.scorer.embed_texts(left.texts, world.device)
        scores, _ = matrix_of(self.scorer, text, video, keep=self.keep, seed=self.seed, world=world)
        return {**retrieval.retrieval_metrics(scores, left.text_to_video, protocol=self.v2t)}


def _warn_of_overlap(train: RetrievalSplit, others: Sequence[RetrievalSplit]) -> None:
    """Says which videos are trained on and judged; a benchmark's own splits share none."""
    trained = set(train.videos)
    # The validated split may be one of those that are scored.
    for name, split in {split.split: split for split in others}.items():
        if both := [video for video in split.videos if video in trained]:
            shown = ", ".join(both[:5]) + " …" * (len(both) > 5)
            log.warning("%d of %d videos of %s are trained on as well: %s", len(both), len(split.videos), name, shown)
