"""The text-video retrieval benchmarks: which sentences, which videos, and whose sentence is whose.

Letters: Q texts, C videos.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from xclip_module.config import nearest
from xclip_module.datasets.retrieval import captions
from xclip_module.datasets.retrieval.annotation_files import Annotated, Span
from xclip_module.datasets.retrieval.video_index import VideoIndex, find_videos
from xclip_module.errors import ConfigError, DataError

Read = Callable[[Path, str], Annotated]


class RetrievalSplit(NamedTuple):
    """One split of a benchmark.

    texts: [Q] sentences, in the order of the released loader.  videos: [C] ids, in the order of their first sentence.
    text_to_video: [Q] int64, the video of each text.
    spans: [C] first and last second that are looked at, None = the whole video.
    files: id -> file, of the videos that were found.  missing: ids of the others, in order.
    without_text: ids that the split's list names without a sentence; they take no part.
    sources: the annotation files.
    """

    name: str
    split: str
    texts: tuple[str, ...]
    videos: tuple[str, ...]
    text_to_video: np.ndarray
    spans: tuple[Span | None, ...]
    files: Mapping[str, Path]
    missing: tuple[str, ...]
    without_text: tuple[str, ...]
    sources: tuple[Path, ...]

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """[Q] (video id, sentence)."""
        owners = (self.videos[video] for video in self.text_to_video.tolist())
        return tuple(zip(owners, self.texts, strict=True))

    @property
    def digest(self) -> str:
        """Twelve hex digits that change with any pair and with their order."""
        lines = "\n".join(f"{video}\t{text}" for video, text in self.pairs)
        return hashlib.sha256(lines.encode(errors="surrogatepass")).hexdigest()[:12]

    @property
    def file_digest(self) -> str:
        """As `digest`, and with any video's file that becomes larger or smaller."""
        sizes = [self.files[name].stat().st_size if name in self.files else -1 for name in self.videos]
        return hashlib.sha256(f"{self.digest} {sizes}".encode()).hexdigest()[:12]

    @property
    def protocol(self) -> str:
        """One line for the results: which texts and videos these are."""
        absent = f" ({len(self.missing)} without file)" if self.missing else ""
        return f"{self.name} {self.split}, {len(self.texts)} texts, {len(self.videos)} videos{absent}, {self.digest}"

    def only_found(self) -> "RetrievalSplit":
        """Without the missing videos and their texts, in the same order.

        The released loaders of LSMDC, DiDeMo and ActivityNet do so in silence: scores on a smaller gallery are higher.
        """
        kept = np.array([video in self.files for video in self.videos], bool)
        rows = np.flatnonzero(kept[self.text_to_video])
        # Of a kept video, its place among the kept ones.
        number = np.cumsum(kept) - 1
        return self._replace(
            texts=tuple(self.texts[row] for row in rows.tolist()),
            videos=tuple(video for video in self.videos if video in self.files),
            text_to_video=number[self.text_to_video[rows]],
            spans=tuple(span for span, is_kept in zip(self.spans, kept, strict=True) if is_kept),
            missing=(),
        )


class Split(NamedTuple):
    """How one split is read, and how many videos and texts it has as published; 0 = not published.

    read: annotation folder and `key` -> what they say.
    """

    read: Read
    key: str
    videos: int
    texts: int


class Benchmark(NamedTuple):
    """The splits of a benchmark.

    reported: the split whose scores are published.
    file_names: id -> names under which its file may lie, best first.
    """

    splits: Mapping[str, Split]
    reported: str
    file_names: Callable[[str], tuple[str, ...]]


def _msrvtt(train: Split, test: Split) -> Benchmark:
    return Benchmark({"train": train, "test": test}, "test", captions.msrvtt_names)


def _splits(read: Read, key: str, counts: Mapping[str, tuple[int, int]]) -> dict[str, Split]:
    return {split: Split(read, key.format(split), videos, texts) for split, (videos, texts) in counts.items()}


# Counts: the papers' and those of the files that CLIP4Clip's guide names. Of DiDeMo's 8395 training videos its list
# has 8392; of ActivityNet's 10024 and 4926 ids 10009 and 4917 have captions. How many clips LSMDC's two larger files
# have is published nowhere.
_MSRVTT_TEST = Split(captions.read_msrvtt_test, "MSRVTT_JSFUSION_test.csv", 1000, 1000)
_MMACTION2_TEST = Split(captions.read_mmaction2, "test_JSFUSION.json", 1000, 1000)
_MSVD = {"train": (1200, 48774), "val": (100, 4290), "test": (670, 27763)}
_LSMDC = {
    "train": Split(captions.read_lsmdc, "LSMDC16_annos_training.csv", 0, 101079),
    "val": Split(captions.read_lsmdc, "LSMDC16_annos_val.csv", 0, 7408),
    "test": Split(captions.read_lsmdc, "LSMDC16_challenge_1000_publictect.csv", 1000, 1000),
}
# One paragraph a video.
_DIDEMO = {"train": (8392, 8392), "val": (1065, 1065), "test": (1004, 1004)}
_ACTIVITYNET = {"train": (10009, 10009), "val": (4917, 4917)}

# The names are those of `sections.RETRIEVAL_NAMES`, which the configuration must know without this room.
BENCHMARKS: Mapping[str, Benchmark] = {
    "msrvtt-9k": _msrvtt(Split(captions.read_msrvtt_train, "MSRVTT_train.9k.csv", 9000, 180000), _MSRVTT_TEST),
    "msrvtt-7k": _msrvtt(Split(captions.read_msrvtt_train, "MSRVTT_train.7k.csv", 7010, 140200), _MSRVTT_TEST),
    "msvd": Benchmark(_splits(captions.read_msvd, "{}", _MSVD), "test", captions.own_name),
    "lsmdc": Benchmark(_LSMDC, "test", captions.own_name),
    "didemo": Benchmark(_splits(captions.read_didemo, "{}", _DIDEMO), "test", captions.didemo_names),
    "activitynet": Benchmark(_splits(captions.read_activitynet, "{}", _ACTIVITYNET), "val", captions.activitynet_names),
    "msrvtt-9k-mmaction2": _msrvtt(Split(captions.read_mmaction2, "train_9k.json", 9000, 180000), _MMACTION2_TEST),
    "msrvtt-7k-mmaction2": _msrvtt(Split(captions.read_mmaction2, "train_7k.json", 7010, 140200), _MMACTION2_TEST),
    "msvd-mmaction2": Benchmark(_splits(captions.read_mmaction2, "{}.json", _MSVD), "test", captions.own_name),
}


def find_benchmark(name: str) -> Benchmark:
    """A benchmark by its name. Raises ConfigError naming the nearest."""
    if name not in BENCHMARKS:
        raise ConfigError(f"unknown benchmark {name}", why=nearest(name, BENCHMARKS))
    return BENCHMARKS[name]


def load_split(name: str, split: str, *, annotations: Path, videos: VideoIndex) -> RetrievalSplit:
    """One split of a benchmark, with the files of its videos.

    annotations: the folder with the files that CLIP4Clip's guide (or MMAction2's preparation) provides, at any depth.
    videos: `index_videos` of the folder with the videos.
    MSR-VTT has no val, ActivityNet no test split: the released code chooses its epoch on the split that it reports.
    Raises ConfigError for an unknown name or split, DataError for annotations that are missing or broken; what
    videos are missing stands in the result.
    """
    benchmark = find_benchmark(name)
    if split not in benchmark.splits:
        raise ConfigError(f"{name} has no split {split}", why=f"it has {', '.join(benchmark.splits)}")
    annotated = benchmark.splits[split].read(annotations, benchmark.splits[split].key)
    if not annotated.pairs:
        files = ", ".join(map(str, annotated.sources)) or str(annotations)
        gap = f"no sentence in {name} {split}"
        raise DataError(gap, files, "expected pairs of video and text", "download it again")
    order = {video: number for number, video in enumerate(dict.fromkeys(video for video, _ in annotated.pairs))}
    paths = find_videos(videos, {video: benchmark.file_names(video) for video in order})
    return RetrievalSplit(
        name=name,
        split=split,
        texts=tuple(text for _, text in annotated.pairs),
        videos=tuple(order),
        text_to_video=np.array([order[video] for video, _ in annotated.pairs], np.int64),
        spans=tuple(annotated.spans.get(video) for video in order),
        files=paths,
        missing=tuple(video for video in order if video not in paths),
        without_text=annotated.without_text,
        sources=annotated.sources,
    )
