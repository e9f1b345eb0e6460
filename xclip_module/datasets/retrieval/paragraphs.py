"""DiDeMo and ActivityNet Captions as paragraph retrieval: all sentences of a video become one text."""

import math
from collections.abc import Sized
from pathlib import Path

from xclip_module.datasets.retrieval.annotation_files import (
    Annotated,
    Span,
    entry,
    expect,
    find_file,
    read_ids,
    read_json,
)
from xclip_module.errors import DataError

# Annotators saw the first 30 s of a video; second 30 and 31 count as well, where a video has them.
DIDEMO_SPAN: Span = (0, 31)
ACTIVITYNET_FILES = {"train": ("train_ids.json", "train.json"), "val": ("val_ids.json", "val_1.json")}


def read_didemo(folder: Path, split: str) -> Annotated:
    """One paragraph a video: its descriptions with a blank between them, in the order of `<split>_data.json`.

    Videos come in the order of their first description; only those of `<split>_list.txt` count. Their moments are not
    used, every video is looked at from second 0 to 31.
    Source: CLIP4Clip (Luo et al. 2022) dataloader_didemo_retrieval.py.
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


def _require(videos: Sized, file: Path, path: Path) -> None:
    if not videos:
        raise DataError("no video of the list has a sentence", file, f"list: {path}", "take both from the same split")


def _whole_seconds(duration: float, where: str) -> int:
    if not (math.isfinite(duration) and duration >= 0):
        raise DataError("wrong duration", where, f"found {duration}, expected seconds", "mend that entry")
    # The released loader moves an end that equals the start on by a second.
    return max(math.ceil(duration), 1)
