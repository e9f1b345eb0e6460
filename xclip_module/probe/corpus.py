"""What a probe can learn from, and what is left to score: the data set with every split, checked before any work."""

from xclip_module.config import Config, DataConfig, ProbeConfig
from xclip_module.datasets.catalogue import load_corpus
from xclip_module.errors import ConfigError, DataError
from xclip_module.interface import Corpus
from xclip_module.tasks.localisation.load import LocalisationData, check_track, scored_splits, with_every_split

TRAIN, VAL = "train", "val"
_NO_VAL = "there is no val video to choose one on"


def load_probe_data(config: Config) -> LocalisationData:
    """The data set with every split, and the splits that are scored: without val where the last fit learns from it.

    Raises ConfigError or DataError for what cannot be learned from.
    """
    data, section = config.data, config.probe
    if data.video:
        why = "own recordings have no labels to learn from"
        raise ConfigError(f"data.video={data.video}", why=why, attempt="--data.name=cholec80 --data.root=FOLDER")
    if config.model.head:
        raise ConfigError("model.head", why="this script trains one", attempt="python run_zeroshot.py --model.head=…")
    for key, value in (("prompt_sets", config.eval.prompt_sets), ("background", config.eval.background)):
        if value:
            raise ConfigError(f"eval.{key}", why="a head knows classes, not sentences", attempt="leave it empty")
    corpus = load_corpus(with_every_split(data))
    check_track(config.eval, corpus, has_temporal=section.temporal != "none")
    labelled = sum(video.id in corpus.moments for video in corpus.of_split(TRAIN))
    if not labelled:
        why = f"{corpus.name} has no labelled video in its train split"
        raise DataError("nothing to learn from", data.annotations or data.root or corpus.name, why)
    check_shots(section, labelled)
    if not section.penalty:
        _check_choice(section, corpus)
    return LocalisationData(corpus, _scored_splits(data, section, corpus))


def _check_choice(section: ProbeConfig, corpus: Corpus) -> None:
    """Raises ConfigError for a kind of query with training examples of which val has none to choose a penalty on."""
    held = {
        split: {
            name
            for video in corpus.of_split(split)
            for name, segments in corpus.moments.get(video.id, {}).items()
            if segments
        }
        for split in (TRAIN, VAL)
    }
    for kind in dict.fromkeys(query.kind for query in corpus.queries):
        names = {query.name for query in corpus.queries if query.kind == kind}
        if names & held[TRAIN] and not names & held[TRAIN] & held[VAL]:
            raise no_choice(kind, section.monitor, has_val=bool(corpus.of_split(VAL)))


def no_choice(kind: str, monitor: str, *, has_val: bool) -> ConfigError:
    """What to say where there is nothing to choose a penalty on."""
    what = "sentence" if kind == "free" else kind
    happens = "begins or ends" if monitor == "AUROC" else "happens"
    why = f"no {what} of the training videos {happens} in a val video" if has_val else _NO_VAL
    return ConfigError("probe.penalty=0", why=why, attempt="--probe.penalty=100, or a split with val videos")


def check_shots(section: ProbeConfig, videos: int) -> None:
    """Raises ConfigError for more shots than there are training videos."""
    most = max(section.shots, default=0)
    if most > videos:
        why = f"there are {videos} training videos"
        raise ConfigError(f"probe.shots={most}", why=why, attempt=f"--probe.shots=1,{videos}")


def _scored_splits(data: DataConfig, section: ProbeConfig, corpus: Corpus) -> tuple[str, ...]:
    splits = tuple(split for split in scored_splits(data, corpus) if split != VAL or section.refit == TRAIN)
    if not splits:
        why = "nothing is left to score once val is learned from"
        raise ConfigError(f"probe.refit={section.refit}", why=why, attempt="--data.evaluate=test")
    return splits
