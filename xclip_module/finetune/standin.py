"""The three verbs of a task that a training needs, until `tasks` has them."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from xclip_module.config import Config
from xclip_module.interface import Corpus
from xclip_module.run.distributed import World
from xclip_module.sections import RETRIEVAL_NAMES
from xclip_module.tasks.localisation import recipe as localisation_recipe
from xclip_module.tasks.localisation import training as localisation_training
from xclip_module.tasks.retrieval import recipe as retrieval_recipe
from xclip_module.tasks.retrieval import training as retrieval_training
from xclip_module.tasks.training_data import Recipe, TrainingData


class TrainedTask(NamedTuple):
    """training: of a model, on this process.  training_corpus: the videos of every split that a training needs."""

    training: Callable[[Any, World], TrainingData]
    training_corpus: Callable[[], Corpus]
    recipe: Callable[[], Recipe]


def task_of(config: Config) -> TrainedTask:
    """The task of the configured data."""
    is_paired = not config.data.video and config.data.name in RETRIEVAL_NAMES
    verbs = retrieval_training if is_paired else localisation_training
    corpus = retrieval_training.corpus_of if is_paired else localisation_training.labelled_corpus
    recipe = retrieval_recipe.recipe if is_paired else localisation_recipe.recipe
    return TrainedTask(partial(verbs.load, config), partial(corpus, config), partial(recipe, config.data))
