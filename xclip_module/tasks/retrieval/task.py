"""The task of finding which video a sentence means; see `tasks.Task`.

Each verb imports what it needs: what is missing is said before torch, whose import takes seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from xclip_module.config import Config
from xclip_module.interface import Corpus, Video, VideoTextModel
from xclip_module.run import precision
from xclip_module.run.distributed import World
from xclip_module.run.folder import Run
from xclip_module.tasks.recipe import Recipe
from xclip_module.tasks.retrieval.load import Galleries, check_sections, corpus_of, load_galleries, videos_of
from xclip_module.tasks.weights import AS_CONFIGURED, UNTRAINED, Origin, announce_weights, build_model

if TYPE_CHECKING:
    from xclip_module.tasks.retrieval.judge import RetrievalResults
    from xclip_module.tasks.retrieval.score import PairScorer, SplitScores
    from xclip_module.tasks.training_data import TrainingData

RECIPE = Recipe(
    # CLIP4Clip (Luo et al. 2022) section 4: no augmentation, 5 epochs of 128 pairs. Its towers' 1e-7 is for fp16
    # weights, which that moves as far as 1e-6 does ours.
    values={
        "epochs": 5,
        "batch_size": 128,
        "lr": 1e-4,
        "pretrained_lr_scale": 0.01,
        "crop_scale": 1.0,
        "colour": 0.0,
        "jitter_seconds": 0.0,
        "monitor": "t2v/R@1",
    },
    # What only clips of a long video have.
    unused=("jitter_seconds", "hard_negatives", "balance_phases", "clip_stride_seconds", "cache_fps", "prompt_sets"),
    contents="sentences of whole videos",
    monitors=("t2v/R@1",),
    refused_losses={"classification": "a softmax over the sentences of all videos is no classification"},
)


class RetrievalTask(NamedTuple):
    """The task under one configuration."""

    config: Config

    def load(self) -> Galleries:
        check_sections(self.config.data, self.config.eval, head_path=self.config.model.head)
        return load_galleries(self.config.data)

    def scorer(self, data: Galleries, run: Run, origin: Origin = AS_CONFIGURED) -> PairScorer:
        announce_weights(self.config.model, self.config.data)
        from xclip_module.evaluation.retrieval_scoring import check_two_stage
        from xclip_module.tasks.retrieval.clips import ClipEncoder, choose_frames
        from xclip_module.tasks.retrieval.score import PairScorer

        config, device = self.config, run.world.device
        model = build_model(config.model, config.data, seed=config.run.seed, device=device)
        if config.eval.two_stage:
            check_two_stage(model)
        choice = choose_frames(config.data, model, weights=config.model.weights)
        encoder = ClipEncoder(model, choice, precision.choose(config.run.precision, device))
        return PairScorer(encoder, config.model, config.model.weights.startswith(UNTRAINED), origin)

    def describe(self, data: Galleries, scorer: PairScorer) -> dict[str, Any]:
        from xclip_module.tasks.retrieval.score import settings_of

        return settings_of(scorer, self.config.data, seed=self.config.run.seed)

    def score(self, data: Galleries, scorer: PairScorer, run: Run) -> dict[str, SplitScores]:
        from xclip_module.tasks.encode import feature_store
        from xclip_module.tasks.retrieval.score import score_gallery

        config = self.config
        store = feature_store(config.data, root=config.run.root)
        rules = {"keep": config.eval.two_stage, "seed": config.run.seed}
        return {
            split: score_gallery(scorer, gallery, run, data=config.data, store=store, **rules)
            for split, gallery in data.items()
        }

    def judge(self, data: Galleries, scorer: PairScorer, scores: dict[str, SplitScores]) -> RetrievalResults:
        from xclip_module.tasks.retrieval.judge import judge

        return judge(scorer, scores, self.describe(data, scorer), self.config.eval)

    def write(self, data: Galleries, scores: dict[str, SplitScores], results: RetrievalResults, run: Run) -> None:
        from xclip_module.tasks.retrieval.write import write

        write(scores, results, run, data=self.config.data, v2t=self.config.eval.v2t)

    def scored(self, data: Galleries) -> Corpus:
        return corpus_of(self.config.data.name, list(data.values()))

    def only(self, data: Galleries) -> tuple[Video, Galleries]:
        split, gallery = next(iter(data.items()))
        others = dict.fromkeys(gallery.split.videos[1:], "not looked at")
        gallery = gallery.without(others) if others else gallery
        return videos_of(gallery.split)[0], {split: gallery}

    def recipe(self) -> Recipe:
        return RECIPE

    def load_training(self) -> Galleries:
        check_sections(self.config.data, self.config.eval, head_path=self.config.model.head)
        return load_galleries(self.config.data, is_training=True)

    def training_corpus(self, data: Galleries) -> Corpus:
        return self.scored(data)

    def training(self, data: Galleries, model: VideoTextModel, world: World) -> TrainingData:
        from xclip_module.tasks.retrieval.training import training_data

        return training_data(self.config, data, model, world)
