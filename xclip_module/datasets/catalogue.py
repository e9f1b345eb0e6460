"""Which loader and which sampling belong to a name."""

from collections.abc import Callable

from xclip_module.config import DataConfig
from xclip_module.datasets.cholec80 import load_cholec80, load_demo
from xclip_module.datasets.corpus import Corpus, Query
from xclip_module.datasets.moments import load_moments, load_recordings, split_queries
from xclip_module.datasets.windows import Sampling

LOADERS: dict[str, Callable[[DataConfig], Corpus]] = {
    "demo": load_demo,
    "cholec80": load_cholec80,
    "moments": load_moments,
}

# Clip length, frames and stride where the config leaves them open. The demo's operations last a minute or two.
_DEFAULTS = {"demo": Sampling(4.0, 4, 1.0)}
_DEFAULT = Sampling(16.0, 16, 4.0)


def load_corpus(data: DataConfig) -> Corpus:
    """The data set that the config names, or one's own recordings; `data.queries` replaces its sentences.

    Raises DataError or ConfigError for anything missing, broken or empty.
    """
    if data.video:
        return load_recordings(data)
    corpus = LOADERS[data.name](data)
    if not data.queries:
        return corpus
    queries = tuple(Query(text, text, "free") for text in split_queries(data.queries))
    return corpus._replace(queries=queries)


def choose_sampling(data: DataConfig, *, clip_frames: int) -> Sampling:
    """Clip length, frames, stride: the config's, else the checkpoint's (`clip_frames`, 0 = open), else the data's."""
    default = _DEFAULT if data.video else _DEFAULTS.get(data.name, _DEFAULT)
    return Sampling(
        clip_seconds=data.clip_seconds or default.clip_seconds,
        frames_per_clip=data.frames_per_clip or clip_frames or default.frames_per_clip,
        stride_seconds=data.stride_seconds or default.stride_seconds,
    )
