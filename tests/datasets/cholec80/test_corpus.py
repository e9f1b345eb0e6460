from pathlib import Path

import pytest
from support.cholec80_tree import write_copy, write_frames, write_labels

from xclip_module.config import DataConfig
from xclip_module.datasets.cholec80.corpus import PHASES, SPLITS, TOOLS, load_cholec80, load_demo
from xclip_module.datasets.cholec80.layout import find_layout
from xclip_module.errors import DataError

# Every annotated video counts as missing unless it is there; the copies here hold a few.
LENIENT = {"name": "cholec80", "skip_unreadable": True}


def test_official_layout_gives_seven_phases_and_seven_tools_by_split(copy):
    corpus = load_cholec80(DataConfig(root=str(copy), **LENIENT))
    assert [query.name for query in corpus.queries] == [*PHASES, *TOOLS]
    assert [(video.id, video.split) for video in corpus.videos] == [
        ("video01", "train"),
        ("video33", "val"),
        ("video41", "test"),
    ]
    assert corpus.moments["video33"]["Preparation"] == ((0.0, 4.0),)
    assert corpus.moments["video33"]["Hook"] == ((4.0, 8.0),)
    assert corpus.moments["video33"]["Clipper"] == ()


def test_the_trailing_phase_row_adds_no_time(copy):
    corpus = load_cholec80(DataConfig(root=str(copy), **LENIENT))
    assert corpus.moments["video33"]["GallbladderDissection"] == ((8.0, 12.0),)


@pytest.mark.parametrize("renamed", ["phase", "annotations", "."])
def test_nesting_and_folder_names_do_not_matter(tmp_path, renamed):
    root = write_copy(tmp_path / "a", [41])
    for folder in ("phase_annotations", "tool_annotations", "videos"):
        for file in (root / folder).iterdir():
            target = tmp_path / "b" / renamed / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            file.rename(target)
    corpus = load_cholec80(DataConfig(root=str(tmp_path / "b"), **LENIENT))
    assert [video.id for video in corpus.videos] == ["video41"]


def test_named_splits_are_those_of_the_papers_and_disjoint():
    for name, (train, val, test) in SPLITS.items():
        sizes = tuple(int(part) for part in name.split("/"))
        assert (train, val - train, test - val) == (sizes if len(sizes) == 3 else (sizes[0], 0, sizes[1]))


def test_the_split_hash_differs_between_splits_and_not_between_copies(copy, tmp_path):
    hashes = {
        load_cholec80(DataConfig(root=str(copy), splits=splits, **LENIENT)).protocol.split(",")[1] for splits in SPLITS
    }
    assert len(hashes) == 3
    other = write_copy(tmp_path, [2], seconds=3)
    assert load_cholec80(DataConfig(root=str(other), **LENIENT)).protocol.split(",")[1] in hashes


def test_two_files_for_one_video_are_refused(tmp_path):
    root = write_copy(tmp_path, [41], seconds=3)
    (root / "backup").mkdir()
    (root / "backup" / "video41.mp4").write_bytes((root / "videos" / "video41.mp4").read_bytes())
    with pytest.raises(DataError, match="two files for video41"):
        load_cholec80(DataConfig(root=str(root), **LENIENT))


def test_missing_videos_stop_unless_skipping_is_asked_for(copy):
    with pytest.raises(DataError, match=r"46 videos missing.*video34 \(no labels\).*--data.skip_unreadable=true"):
        load_cholec80(DataConfig(name="cholec80", root=str(copy)))
    assert len(load_cholec80(DataConfig(root=str(copy), **LENIENT)).missing) == 46


def test_videos_of_splits_that_are_not_scored_are_not_needed(copy):
    corpus = load_cholec80(DataConfig(name="cholec80", root=str(copy), evaluate=("train",), skip_unreadable=True))
    assert len(corpus.missing) == 31


@pytest.mark.parametrize("make", [lambda root: None, lambda root: write_labels(root, 41, seconds=3)])
def test_a_root_without_video_says_so(tmp_path, make):
    make(tmp_path)
    with pytest.raises(DataError, match="no video found"):
        load_cholec80(DataConfig(root=str(tmp_path), **LENIENT))


def test_a_missing_root_says_so():
    with pytest.raises(DataError, match=r"data root not found: nowhere.*--data.root=FOLDER"):
        load_cholec80(DataConfig(root="nowhere", **LENIENT))


def test_phase_and_tool_files_of_different_videos_are_refused(tmp_path):
    root = write_copy(tmp_path, [41], seconds=9)
    rows = (root / "tool_annotations" / "video41-tool.txt").read_text().splitlines()
    (root / "tool_annotations" / "video41-tool.txt").write_text("\n".join(rows[:-2]) + "\n")
    with pytest.raises(DataError, match=r"disagree: .*226 rows = 9.04 s of phases, 7 rows = 7 s of tools"):
        load_cholec80(DataConfig(root=str(root), **LENIENT))


@pytest.mark.parametrize(
    ("folder", "pattern"),
    [
        ("frames/video41", "{:08d}.jpg"),
        ("frames/test/video41", "frame_{:05d}.webp"),
        ("cutMargin/41", "{}.jpg"),
        ("flat", "video41_{:06d}.png"),
    ],
)
def test_frame_folders_of_the_common_pipelines_are_found(tmp_path, folder, pattern):
    write_labels(tmp_path, 41, seconds=9)
    write_frames(tmp_path / folder, range(9), pattern=pattern)
    (video,) = load_cholec80(DataConfig(root=str(tmp_path), **LENIENT)).videos
    assert [file.suffix for file in video.source.files] == [Path(pattern).suffix] * 9


def test_a_video_is_preferred_to_its_extracted_frames(copy):
    write_frames(copy / "frames" / "video41", range(12))
    layout = find_layout(copy)
    assert 41 in layout.frames
    videos = {video.id: video for video in load_cholec80(DataConfig(root=str(copy), **LENIENT)).videos}
    assert isinstance(videos["video41"].source, Path)


def test_the_demo_is_twelve_videos_in_three_splits():
    corpus = load_demo(DataConfig())
    splits = [video.split for video in corpus.videos]
    assert [splits.count(name) for name in ("train", "val", "test")] == [6, 3, 3]
