"""Which loader and which sampling belong to a name."""

import shlex
from collections.abc import Callable

from xclip_module.config import DataConfig
from xclip_module.datasets.cholec80.corpus import load_cholec80, load_demo
from xclip_module.datasets.moments import load_moments, load_recordings, split_queries
from xclip_module.errors import ConfigError, DataError
from xclip_module.interface import Corpus, FrameFolder, Query, Sampling
from xclip_module.sections import RETRIEVAL_NAMES

LOADERS: dict[str, Callable[[DataConfig], Corpus]]
LOADERS = {"demo": load_demo, "cholec80": load_cholec80, "moments": load_moments}

# Clip length, frames and stride where the config leaves them open. The demo's operations last a minute or two.
_DEFAULTS = {
    "demo": Sampling(4.0, 4, 1.0),
    # Retrieval has one clip a video, of so many frames; paragraphs over minutes get more, as in the released scripts.
    **dict.fromkeys(RETRIEVAL_NAMES, Sampling(12.0, 12, 12.0)),
    **dict.fromkeys(("didemo", "activitynet"), Sampling(64.0, 64, 64.0)),
}
# One frame a second, as the retrieval releases sample.
_DEFAULT = Sampling(16.0, 16, 4.0)


def load_corpus(data: DataConfig) -> Corpus:
    """The data set that the config names, or one's own recordings; `data.queries` replaces its sentences.

    Raises DataError or ConfigError for anything missing, broken or empty.
    """
    if not data.video and data.name in RETRIEVAL_NAMES:
        rule = "it is for text-video retrieval: sentences of whole videos, nothing to localise"
        raise ConfigError(f"data.name={data.name}", why=rule, attempt="run_zeroshot.py or run_finetune.py")
    try:
        corpus = load_recordings(data) if data.video else LOADERS[data.name](data)
    except OSError as error:  # no permission, too long a name
        file = str(error.filename or data.root or data.name)[:200]
        raise DataError("cannot read", file, error.strerror or "", f"ls -ld {shlex.quote(file)}") from error
    _check_names(corpus)
    if data.video or not data.queries:
        return corpus
    queries = tuple(Query(text, text, "free") for text in split_queries(data.queries))
    return corpus._replace(queries=queries)


def _check_names(corpus: Corpus) -> None:
    """Refuses names that are no text: neither the log nor the results could hold them."""
    for video in corpus.videos:
        path = video.source.folder if isinstance(video.source, FrameFolder) else video.source
        if str(path) != str(path).encode(errors="replace").decode():
            raise DataError("file name is no UTF-8 text", path, attempt="rename it")


def choose_sampling(data: DataConfig, *, clip_frames: int) -> Sampling:
    """Clip length, frames, stride: the config's, else the checkpoint's (`clip_frames`, 0 = open), else the data's."""
    default = _DEFAULT if data.video else _DEFAULTS.get(data.name, _DEFAULT)
    return Sampling(
        clip_seconds=data.clip_seconds or default.clip_seconds,
        frames_per_clip=data.frames_per_clip or clip_frames or default.frames_per_clip,
        stride_seconds=data.stride_seconds or default.stride_seconds,
    )
