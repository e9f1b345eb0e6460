"""A benchmark's texts and videos, split by split, and how much of it can be scored."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from xclip_module.config import DataConfig, EvalConfig
from xclip_module.datasets.retrieval.benchmarks import RetrievalSplit, find_benchmark
from xclip_module.datasets.retrieval.benchmarks import load_split as read_split
from xclip_module.datasets.retrieval.video_index import index_videos
from xclip_module.errors import ConfigError, DataError
from xclip_module.interface import Corpus, Missing, Video

log = logging.getLogger(__name__)


class Gallery(NamedTuple):
    """A split as it is scored, and how much of it that is.

    of_texts, of_videos: how many there should be.  skipped: video -> why it takes no part.
    """

    split: RetrievalSplit
    of_texts: int
    of_videos: int
    skipped: dict[str, str]

    def without(self, unreadable: dict[str, str]) -> "Gallery":
        """Without videos that turned out to be unreadable, and their texts. Raises DataError when nothing is left."""
        left = {name: path for name, path in self.split.files.items() if name not in unreadable}
        if not left:
            raise DataError("no video could be scored", self.split.name, next(iter(unreadable.values()), "none found"))
        kept = self.split._replace(files=left).only_found()
        return self._replace(split=kept, skipped=self.skipped | unreadable)


# By the name of the split.
Galleries = dict[str, Gallery]


def check_sections(data: DataConfig, judging: EvalConfig, *, head_path: str) -> None:
    """Raises ConfigError for what goes with free sentences or heads, and for a benchmark without its videos."""
    for name, value in (
        ("data.queries", data.queries),
        ("model.head", head_path),
        ("eval.background", judging.background),
        ("eval.prompt_sets", judging.prompt_sets),
    ):
        if value:
            why = f"{data.name} has its own sentences"
            raise ConfigError(f"{name} with data.name={data.name}", why=why, attempt=f"leave {name} empty")
    if not data.root:
        attempt = "--data.root=FOLDER --data.annotations=FOLDER"
        raise ConfigError(f"data.name={data.name} needs its videos", attempt=attempt)


def load_gallery(data: DataConfig, split: str) -> Gallery:
    """One split. Raises DataError for videos that are missing unless `data.skip_unreadable`."""
    annotations = Path(data.annotations or data.root)
    content = read_split(data.name, split, annotations=annotations, videos=index_videos(Path(data.root)))
    if content.missing and not data.skip_unreadable:
        shown = ", ".join(content.missing[:5]) + " …" * (len(content.missing) > 5)
        why = f"{len(content.missing)} of {len(content.videos)} videos of {data.name} {split} missing"
        check = f"python -m xclip_module.datasets.retrieval_check {data.name} --annotations={annotations}"
        attempt = f"{check} --videos={data.root} lists them, or "
        raise DataError(why, data.root, shown, f"{attempt}--data.skip_unreadable=true")
    gallery = Gallery(content, len(content.texts), len(content.videos), {})
    return gallery.without(dict.fromkeys(content.missing, "no video")) if content.missing else gallery


def load_galleries(data: DataConfig, *, is_training: bool = False) -> Galleries:
    """The splits to be scored; before them those that a training needs."""
    names = scored_splits(data)
    if not set(names) & set(data.evaluate):
        asked = ", ".join(data.evaluate) or "nothing"
        log.warning("%s has no split %s: its reported split %s is scored", data.name, asked, names[0])
    if is_training:
        names = ("train", validated_split(data.name), *names)
    return {split: load_gallery(data, split) for split in dict.fromkeys(names)}


def scored_splits(data: DataConfig) -> tuple[str, ...]:
    """The configured splits that the benchmark has; its reported one where it has none of them.

    Raises ConfigError for a split that is none.
    """
    available = find_benchmark(data.name).splits
    for split in data.evaluate:
        if split not in {"train", "val", "test", "all"}:
            raise ConfigError(f"data.evaluate={split}", why=f"{data.name} has {', '.join(available)}")
    chosen = tuple(dict.fromkeys(split for split in data.evaluate if split in available))
    return chosen or (find_benchmark(data.name).reported,)


def validated_split(benchmark: str) -> str:
    """The split on which a training is judged: val; the reported one where there is no other to judge on.

    MSR-VTT has no val split, ActivityNet's is the reported one. The released code chooses its epoch on such a split;
    here validations on it choose nothing.
    """
    entry = find_benchmark(benchmark)
    return "val" if "val" in entry.splits else entry.reported


def videos_of(split: RetrievalSplit) -> tuple[Video, ...]:
    """The videos of a split, in its order."""
    return tuple(
        Video(name, split.files[name], split.split, span=span)
        for name, span in zip(split.videos, split.spans, strict=True)
    )


def corpus_of(name: str, galleries: Sequence[Gallery]) -> Corpus:
    """The videos of several splits, without the sentences."""
    return Corpus(
        name=name,
        videos=tuple(video for gallery in galleries for video in videos_of(gallery.split)),
        queries=(),
        moments={},
        protocol="; ".join(gallery.split.protocol for gallery in galleries),
        missing=tuple(
            Missing(name, gallery.split.split, why) for gallery in galleries for name, why in gallery.skipped.items()
        ),
    )
