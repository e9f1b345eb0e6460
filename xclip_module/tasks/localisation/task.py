"""The task of finding when a sentence holds; see `tasks.Task`.

Each verb imports what it needs: what is missing is said before torch, whose import takes seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from xclip_module.config import Config
from xclip_module.interface import Corpus, Video, VideoTextModel
from xclip_module.run import precision
from xclip_module.run.distributed import World
from xclip_module.run.folder import Run
from xclip_module.tasks.localisation.load import LocalisationData, load, load_training
from xclip_module.tasks.recipe import Recipe
from xclip_module.tasks.weights import AS_CONFIGURED, UNTRAINED, Origin, announce_weights, build_model

if TYPE_CHECKING:
    from xclip_module.tasks.localisation.judge import LocalisationResults
    from xclip_module.tasks.localisation.score import LocalisationScores
    from xclip_module.tasks.localisation.scorers import Scorer
    from xclip_module.tasks.training_data import TrainingData

# Surgical fine-tuning of CLIP's towers as a start.
_VALUES = {
    "epochs": 10,
    "batch_size": 64,
    "lr": 1e-4,
    "pretrained_lr_scale": 0.1,
    "crop_scale": 0.7,
    "colour": 0.2,
    "jitter_seconds": 2.0,
    "monitor": "mAP@0.5",
}
# The demo's towers are small, and go a little further from shipped weights.
_DEMO = {**_VALUES, "epochs": 6, "batch_size": 16, "pretrained_lr_scale": 1.0, "crop_scale": 1.0}
RECIPE = Recipe(
    values=_VALUES,
    unused=("one_sentence",),
    contents="moments of long videos",
    monitors=("mAP@0.5", "AUROC", "AUPRC", "R1@0.5", "mIoU"),
    refused_losses={},
)


class LocalisationTask(NamedTuple):
    """The task under one configuration."""

    config: Config

    def load(self) -> LocalisationData:
        return load(self.config.data, self.config.eval, head_path=self.config.model.head)

    def scorer(self, data: LocalisationData, run: Run, origin: Origin = AS_CONFIGURED) -> Scorer:
        announce_weights(self.config.model, self.config.data)
        from xclip_module.tasks.localisation import scorers
        from xclip_module.tasks.localisation.windows import WindowEncoder, sampling_of

        config, device = self.config, run.world.device
        model = build_model(config.model, config.data, seed=config.run.seed, device=device)
        section = scorers.with_sampling(config.data, data.head) if data.head else config.data
        sampling = sampling_of(section, model, weights=config.model.weights)
        encoder = WindowEncoder(model, sampling, precision.choose(config.run.precision, device))
        if data.head:
            scorers.check_fit(data.head, model, sampling, crop=config.data.crop, path=config.model.head)
            rows, features = scorers.query_rows(data.head, data.corpus), data.head.source["features"]
            return scorers.HeadScorer(encoder, data.head.to(device), rows, features, origin)
        sentences = scorers.read_sentences(config.model, config.eval, corpus=data.corpus, model=model)
        is_untrained = config.model.weights.startswith(UNTRAINED)
        return scorers.with_sentences(encoder, sentences, device=device, is_untrained=is_untrained, origin=origin)

    def describe(self, data: LocalisationData, scorer: Scorer) -> dict[str, Any]:
        from xclip_module.tasks.localisation.score import settings_of

        config = self.config
        return settings_of(data, scorer, section=config.data, model=config.model, seed=config.run.seed)

    def score(self, data: LocalisationData, scorer: Scorer, run: Run) -> LocalisationScores:
        from xclip_module.tasks.encode import feature_store
        from xclip_module.tasks.localisation.score import score

        config = self.config
        store = feature_store(config.data, root=config.run.root)
        return score(data, scorer, run, section=config.data, model=config.model, store=store)

    def judge(self, data: LocalisationData, scorer: Scorer, scores: LocalisationScores) -> LocalisationResults:
        from xclip_module.tasks.localisation.judge import judge

        config, weights = self.config, self.config.model.weights
        return judge(data, scorer, scores, config.eval, weights=weights, crop=config.data.crop, seed=config.run.seed)

    def write(self, data: LocalisationData, scores: LocalisationScores, results: LocalisationResults, run: Run) -> None:
        from xclip_module.tasks.localisation.write import write

        write(data.corpus, scores, results, run, data=self.config.data, evaluation=self.config.eval)

    def scored(self, data: LocalisationData) -> Corpus:
        return data.corpus._replace(videos=tuple(data.videos))

    def only(self, data: LocalisationData) -> tuple[Video, LocalisationData]:
        shortest = min(data.videos, key=lambda video: video.label_seconds)
        corpus = data.corpus._replace(videos=(shortest,), missing=())
        return shortest, data._replace(corpus=corpus, splits=(shortest.split,))

    def recipe(self) -> Recipe:
        return RECIPE._replace(values=_DEMO) if self.config.data.name == "demo" else RECIPE

    def load_training(self) -> LocalisationData:
        return load_training(self.config.data, self.config.eval)

    def training_corpus(self, data: LocalisationData) -> Corpus:
        videos = (video for video in data.corpus.videos if video.id in data.corpus.moments)
        return data.corpus._replace(videos=tuple(videos))

    def training(self, data: LocalisationData, model: VideoTextModel, world: World) -> TrainingData:
        from xclip_module.tasks.localisation.training import training_data

        return training_data(self.config, data, model, world)
