"""Sentences of the benchmarks, in the order of the released loaders.

A caption of MSR-VTT, MSVD and LSMDC describes a whole clip; of DiDeMo and ActivityNet Captions all sentences of a video
become one text, a paragraph.
"""

import math
from collections.abc import Sized
from pathlib import Path
from typing import Any

from xclip_module.datasets.retrieval.annotation_files import (
    Annotated,
    entry,
    expect,
    find_file,
    read_ids,
    read_json,
    read_lines,
    read_plain_pickle,
    read_table,
)
from xclip_module.datasets.retrieval.video_index import without_suffix
from xclip_module.errors import DataError

MSRVTT_JSON = "MSRVTT_data.json"
# Microsoft's own files: together, in this order, they hold what MSRVTT_data.json holds.
MSRVTT_OFFICIAL = ("train_val_videodatainfo.json", "test_videodatainfo.json")
_LSMDC_COLUMNS = 6
# Annotators saw the first 30 s of a video; second 30 and 31 count as well, where a video has them.
DIDEMO_SPAN = (0, 31)
ACTIVITYNET_FILES = {"train": ("train_ids.json", "train.json"), "val": ("val_ids.json", "val_1.json")}


def read_msrvtt_train(folder: Path, table: str) -> Annotated:
    """Every sentence whose video the csv file `table` lists, in the order of MSRVTT_data.json.

    Without that file Microsoft's two original ones are read.
    Raises DataError for a listed video without a sentence.
    Source: CLIP4Clip (Luo et al. 2022) dataloader_msrvtt_retrieval.py, `MSRVTT_TrainDataLoader` with
    `--expand_msrvtt_sentences`; there such a video is left out in silence.
    """
    path = find_file(folder, table)
    listed = {video for (video,) in read_table(path, ("video_id",))}
    files = _msrvtt_files(folder)
    pairs = []  # in the order of the files, on which the batches of a training depend
    for file in files:
        sentences = entry(read_json(file), "sentences", list, str(file))
        for number, sentence in enumerate(sentences):
            where = f"{file}, sentences[{number}]"
            video = entry(sentence, "video_id", str, where)
            if video in listed:
                pairs.append((video, entry(sentence, "caption", str, where)))
    if absent := sorted(listed - {video for video, _ in pairs}):
        counts = f"{len(absent)} of the {len(listed)} videos of {path.name} have no sentence: {', '.join(absent[:5])}"
        attempt = f"the complete {MSRVTT_JSON} (10000 videos), or both of {' and '.join(MSRVTT_OFFICIAL)}"
        raise DataError("sentences missing", files[0], counts, attempt)
    return Annotated(tuple(pairs), (path, *files))


def read_msrvtt_test(folder: Path, table: str) -> Annotated:
    """One sentence a row, in the order of the csv file `table`: MSRVTT_JSFUSION_test.csv is the 1k-A test set.

    Source: CLIP4Clip dataloader_msrvtt_retrieval.py, `MSRVTT_DataLoader`.
    """
    path = find_file(folder, table)
    pairs = tuple((video, text) for video, text in read_table(path, ("video_id", "sentence")))
    return Annotated(pairs, (path,))


def read_msvd(folder: Path, split: str) -> Annotated:
    """Every caption of every video of `<split>_list.txt`, grouped by video in the order of the list.

    raw-captions.pkl holds a dict from video id to captions, each a list of words; it is read without running it.
    Source: CLIP4Clip dataloader_msvd_retrieval.py, which runs the pickle.
    """
    path, file = find_file(folder, f"{split}_list.txt"), find_file(folder, "raw-captions.pkl")
    captions = expect(read_plain_pickle(file), dict, str(file))
    pairs = []
    for video in read_ids(path):
        if video not in captions:
            raise DataError(f"no captions of {video}", file, f"but {path} lists it", "get both files together again")
        pairs += [(video, text) for text in _joined(captions[video], f"{file}: {video}")]
    return Annotated(tuple(pairs), (path, file))


def read_lsmdc(folder: Path, name: str) -> Annotated:
    """One pair a line of a tab-separated file without header; a clip id may come again with another sentence.

    Source: CLIP4Clip dataloader_lsmdc_retrieval.py. There a clip that comes twice stands twice in the gallery, here
    once, with both sentences.
    """
    path = find_file(folder, name)
    pairs = []
    for where, line in read_lines(path):
        columns = line.split("\t")
        if len(columns) != _LSMDC_COLUMNS:
            counts = f"found {len(columns)} columns between tabs, expected clip id, four times and a sentence"
            attempt = f"the {name} of the retrieval task (its paraphrased files have seven columns)"
            raise DataError("wrong line", where, counts, attempt)
        pairs.append((columns[0], columns[-1]))
    return Annotated(tuple(pairs), (path,))


def read_mmaction2(folder: Path, name: str) -> Annotated:
    """Every caption of a file that MMAction2's prepare_msrvtt.py or prepare_msvd.py has written, in its order.

    The file maps "video0.mp4" to captions; the suffix does not become part of the id.
    Source: MMAction2 mmaction/datasets/video_text_dataset.py, which knows no second caption of a video: there each
    pair has a copy of its video in the gallery.
    """
    path = find_file(folder, name)
    pairs = []
    for video, captions in expect(read_json(path), dict, str(path)).items():
        where = f"{path}: {video}"
        texts = [expect(text, str, where) for text in expect(captions, list, where)]
        pairs += [(without_suffix(video), text) for text in texts]
    return Annotated(tuple(pairs), (path,))


def read_didemo(folder: Path, split: str) -> Annotated:
    """One paragraph a video: its descriptions with a blank between them, in the order of `<split>_data.json`.

    Videos come in the order of their first description; only those of `<split>_list.txt` count. Their moments are not
    used, every video is looked at from second 0 to 31.
    Source: CLIP4Clip dataloader_didemo_retrieval.py.
    """
    path, file = find_file(folder, f"{split}_list.txt"), find_file(folder, f"{split}_data.json")
    listed = read_ids(path)
    wanted = set(listed)
    texts: dict[str, list[str]] = {}
    for number, item in enumerate(expect(read_json(file), list, str(file))):
        where = f"{file}, [{number}]"
        video = entry(item, "video", str, where)
        if video in wanted:
            texts.setdefault(video, []).append(entry(item, "description", str, where))
    _require(texts, file, path)
    return Annotated(
        tuple((video, " ".join(parts)) for video, parts in texts.items()),
        (path, file),
        dict.fromkeys(texts, DIDEMO_SPAN),
        tuple(video for video in listed if video not in texts),
    )


def read_activitynet(folder: Path, split: str) -> Annotated:
    """One paragraph a video: its sentences with a blank between them, in the order of the list of ids.

    split: "train", or "val" = val_1, on which published results are reported. Sentences often begin with a blank of
    their own, which stays. Every video is looked at from second 0 to its annotated length, rounded up.
    Source: CLIP4Clip dataloader_activitynet_retrieval.py. Ids without captions are left out there as here; here they
    are named in `without_text`.
    """
    path, file = (find_file(folder, name) for name in ACTIVITYNET_FILES[split])
    captions = expect(read_json(file), dict, str(file))
    ids = [expect(video, str, f"{path}, [{n}]") for n, video in enumerate(expect(read_json(path), list, str(path)))]
    pairs, spans, without_text = [], {}, []
    for video in dict.fromkeys(ids):
        if video not in captions:
            without_text.append(video)
            continue
        where = f"{file}: {video}"
        sentences = entry(captions[video], "sentences", list, where)
        pairs.append((video, " ".join(expect(text, str, where) for text in sentences)))
        spans[video] = (0, _whole_seconds(entry(captions[video], "duration", (int, float), where), where))
    _require(spans, file, path)
    return Annotated(tuple(pairs), (path, file), spans, tuple(without_text))


def msrvtt_names(video: str) -> tuple[str, ...]:
    """Under which names a video's file may lie: .mp4, else .webm, as in the released loader, else any other suffix."""
    return (f"{video}.mp4", f"{video}.webm", video)


def own_name(video: str) -> tuple[str, ...]:
    """A file named as its id, with any suffix, anywhere below the folder: MSVD and LSMDC."""
    return (video,)


def didemo_names(video: str) -> tuple[str, ...]:
    """Under which names a video's file may lie.

    Ids carry the suffix of the upload (.avi, .3gp, a bare dot). The file of that very name comes first, as in
    CLIP4Clip; then `x.avi.mp4`, as X-CLIP (Ma et al. 2022) cuts at ".mp4"; then, which neither finds, `x.mp4`.

    >>> didemo_names("x.avi")
    ('x.avi', 'x')
    """
    return (video, video.rpartition(".")[0] or video)


def activitynet_names(video: str) -> tuple[str, ...]:
    """Under which names a video's file may lie: without "v_", as in the released loaders, else with it.

    >>> activitynet_names("v_-abc")
    ('-abc', 'v_-abc')
    """
    return (video.removeprefix("v_"), video)


def _msrvtt_files(folder: Path) -> tuple[Path, ...]:
    try:
        return (find_file(folder, MSRVTT_JSON),)
    except DataError as error:
        try:
            return tuple(find_file(folder, name) for name in MSRVTT_OFFICIAL)
        except DataError:
            raise error from None


def _joined(captions: Any, where: str) -> list[str]:
    """Captions as texts. A caption that is one text already would come out with a blank between its letters."""
    if not isinstance(captions, list | tuple) or not captions:
        raise DataError("wrong captions", where, f"found {str(captions)[:60]!r}, expected a list of lists of words")
    for words in captions:
        if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
            raise DataError("wrong caption", where, f"found {str(words)[:60]!r}, expected a list of words")
    return [" ".join(words) for words in captions]


def _require(videos: Sized, file: Path, path: Path) -> None:
    if not videos:
        raise DataError("no video of the list has a sentence", file, f"list: {path}", "take both from the same split")


def _whole_seconds(duration: float, where: str) -> int:
    if not (math.isfinite(duration) and duration >= 0):
        raise DataError("wrong duration", where, f"found {duration}, expected seconds", "mend that entry")
    # The released loader moves an end that equals the start on by a second.
    return max(math.ceil(duration), 1)
