"""What is asked of videos and how it is judged: two tasks with one interface, in which the scripts are written."""

from typing import TYPE_CHECKING, Any, Protocol

from xclip_module.config import Config
from xclip_module.sections import RETRIEVAL_NAMES

if TYPE_CHECKING:
    from xclip_module.interface import Corpus, Video, VideoTextModel
    from xclip_module.run.distributed import World
    from xclip_module.run.folder import Run
    from xclip_module.tasks.recipe import Recipe
    from xclip_module.tasks.training_data import TrainingData
    from xclip_module.tasks.weights import Origin


class Task(Protocol):
    """One task under one configuration. `data`, `scorer`, `scores` and `results` are the task's own records."""

    def load(self) -> Any:
        """Annotations and files; cheap mistakes first."""

    def scorer(self, data: Any, run: "Run", origin: "Origin" = ...) -> Any:
        """What scores: the configured weights, with sentences or with a head."""

    def describe(self, data: Any, scorer: Any) -> dict[str, Any]:
        """The settings of the run, for environment.json."""

    def score(self, data: Any, scorer: Any, run: "Run") -> Any:
        """Curves, or a matrix, from stored features, else from one pass over the files."""

    def judge(self, data: Any, scorer: Any, scores: Any) -> Any:
        """Numbers with controls or chance, and intervals; `.metrics` of the result is what metrics.json holds."""

    def write(self, data: Any, scores: Any, results: Any, run: "Run") -> None:
        """Files, pictures and reports; the last words on the terminal."""

    def scored(self, data: Any) -> "Corpus":
        """The videos to score, with what is missing of them."""

    def only(self, data: Any) -> "tuple[Video, Any]":
        """One video, and the data with no other: for a trial."""

    def recipe(self) -> "Recipe":
        """What the section finetune means where it is left open."""

    def load_training(self) -> Any:
        """Annotations and files of every split that a training and its evaluation need; cheap mistakes first."""

    def training_corpus(self, data: Any) -> "Corpus":
        """The videos among them that are trained on or judged, with what is missing."""

    def training(self, data: Any, model: "VideoTextModel", world: "World") -> "TrainingData":
        """Clips, sentences, and how the present weights are validated."""


def task_of(config: Config) -> Task:
    """The task that the configured data set is for; one's own recordings are searched for moments."""
    # Here, so that one task is never loaded for the other.
    if not config.data.video and config.data.name in RETRIEVAL_NAMES:
        from xclip_module.tasks.retrieval.task import RetrievalTask

        return RetrievalTask(config)
    from xclip_module.tasks.localisation.task import LocalisationTask

    return LocalisationTask(config)
