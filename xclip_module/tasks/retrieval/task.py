"""The task of finding which video a sentence means; see `tasks.Task`.

Each verb imports what it needs: what is missing is said before torch, whose import takes seconds.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from xclip_module.config import Config
from xclip_module.interface import Corpus, Video, VideoTextModel
from xclip_module.run import precision
from xclip_module.run.distributed import World
from xclip_module.run.folder import Run
from xclip_module.tasks.retrieval.load import (
    Gallery,
    check_sections,
    corpus_of,
    load_galleries,
    load_training,
    reported_split,
    videos_of,
)
from xclip_module.tasks.retrieval.recipe import recipe
from xclip_module.tasks.weights import AS_CONFIGURED, UNTRAINED, Origin, announce_weights, build_model

if TYPE_CHECKING:
    from xclip_module.tasks.recipe import Recipe
    from xclip_module.tasks.retrieval.judge import RetrievalResults
    from xclip_module.tasks.retrieval.score import PairScorer, Scoring, SplitScores
    from xclip_module.tasks.training_data import TrainingData

log = logging.getLogger(__name__)


class RetrievalTask(NamedTuple):
    """The task under one configuration."""

    config: Config

    def load(self) -> dict[str, Gallery]:
        """Texts and videos of every split to be scored."""
        check_sections(self.config.data, self.config.eval, head_path=self.config.model.head)
        return load_galleries(self.config.data)

    def scorer(self, data: dict[str, Gallery], run: Run, origin: Origin = AS_CONFIGURED) -> PairScorer:
        """The configured weights."""
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

    def scoring(self) -> Scoring:
        """How matrices are made."""
        from xclip_module.tasks.encode import feature_store
        from xclip_module.tasks.retrieval.score import Scoring

        config = self.config
        store = feature_store(config.data, root=config.run.root)
        return Scoring(config.data, store, config.eval.two_stage, config.run.seed)

    def describe(self, data: dict[str, Gallery], scorer: PairScorer) -> dict[str, Any]:
        """The settings of the run, for environment.json."""
        from xclip_module.tasks.retrieval.score import settings_of

        return settings_of(scorer, self.config.data, seed=self.config.run.seed)

    def score(self, data: dict[str, Gallery], scorer: PairScorer, run: Run) -> dict[str, SplitScores]:
        """The matrix of every split."""
        from xclip_module.tasks.retrieval.score import score_gallery

        scoring = self.scoring()
        return {split: score_gallery(scorer, gallery, scoring, run) for split, gallery in data.items()}

    def judge(self, data: dict[str, Gallery], scorer: PairScorer, scores: dict[str, SplitScores]) -> RetrievalResults:
        """Ranks of both directions, with chance."""
        from xclip_module.tasks.retrieval.judge import judge

        return judge(scorer, scores, self.describe(data, scorer), self.config.eval)

    def write(
        self, data: dict[str, Gallery], scores: dict[str, SplitScores], results: RetrievalResults, run: Run
    ) -> None:
        """All files of the run folder, and the last words on the terminal."""
        from xclip_module.tasks.retrieval.write import summary_text, write

        section = self.config.data
        write(
            scores,
            results,
            run,
            reported=reported_split(section.name),
            v2t=self.config.eval.v2t,
            timeout_seconds=section.decode_timeout_seconds,
        )
        log.info("%s\nreport: %s", summary_text(results.metrics), run.folder / "report.html")

    def scored(self, data: dict[str, Gallery]) -> Corpus:
        """The videos to score, with what is missing of them."""
        return corpus_of(self.config.data.name, list(data.values()))

    def only(self, data: dict[str, Gallery]) -> tuple[Video, dict[str, Gallery]]:
        """The first video of the first split, and the data with no other."""
        split, gallery = next(iter(data.items()))
        others = dict.fromkeys(gallery.split.videos[1:], "not looked at")
        gallery = gallery.without(others) if others else gallery
        return videos_of(gallery.split)[0], {split: gallery}

    def recipe(self) -> Recipe:
        """What the section finetune means where it is left open."""
        return recipe(self.config.data)

    def load_training(self) -> dict[str, Gallery]:
        """Texts and videos of every split that a training and its evaluation need."""
        check_sections(self.config.data, self.config.eval, head_path=self.config.model.head)
        return load_training(self.config.data)

    def training_corpus(self, data: dict[str, Gallery]) -> Corpus:
        """Their videos."""
        return self.scored(data)

    def training(self, data: dict[str, Gallery], model: VideoTextModel, world: World) -> TrainingData:
        """What training learns from and is validated on."""
        from xclip_module.tasks.retrieval.training import training_data

        return training_data(self.config, data, model, world)
