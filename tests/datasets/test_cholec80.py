import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.barcode import write_video
from support.cholec80_tree import write_copy, write_frames, write_labels

from xclip_module.config import DataConfig
from xclip_module.datasets.catalogue import load_corpus
from xclip_module.datasets.cholec80.check import check_cholec80
from xclip_module.datasets.cholec80.corpus import PHASES, SPLITS, TOOLS, load_cholec80, load_demo
from xclip_module.datasets.cholec80.layout import find_layout, frame_folder
from xclip_module.datasets.prompts import prompt_file, prompt_sets, read_background, read_prompts
from xclip_module.errors import DataError
from xclip_module.video.inspect import probe

ROOT = Path(__file__).parents[2]
# Every annotated video counts as missing unless it is there; the copies here hold a few.
LENIENT = {"name": "cholec80", "skip_unreadable": True}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return write_copy(tmp_path_factory.mktemp("cholec80"), [1, 33, 41])


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
    ("numbers", "expected"),
    [
        (range(12), np.arange(12.0)),  # one a second from 0
        (range(1, 13), np.arange(12.0)),  # ffmpeg writes from 1
        (range(0, 300, 25), np.arange(12.0)),  # 25-fps numbers of one frame a second
        (range(300), np.arange(300) / 25),  # every frame
        (range(1, 301), np.arange(300) / 25),
        ([0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11], np.array([0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11.0])),  # one frame missing
    ],
    ids=str,
)
def test_base_and_stride_of_extracted_frames_are_found_and_fit_the_labels(tmp_path, numbers, expected):
    files = [tmp_path / f"video41_{number:06d}.png" for number in numbers]
    found = frame_folder(files, label_seconds=12.0)
    np.testing.assert_allclose(found.times, expected)
    assert found.duration == pytest.approx(12.0)
    assert found.files == tuple(files)


@pytest.mark.parametrize(
    ("numbers", "seconds"), [(range(1, 21), 12.0), (range(3, 15), 12.0), (range(0, 60, 5), 12.0)], ids=str
)
def test_frames_that_fit_no_hypothesis_are_refused_with_all_of_them(tmp_path, numbers, seconds):
    files = [tmp_path / f"{number:06d}.png" for number in numbers]
    with pytest.raises(DataError, match=r"do not fit the labels: .*one number a second.*25-fps numbers"):
        frame_folder(files, label_seconds=seconds)


def test_the_users_word_on_rate_and_base_is_checked_too(tmp_path):
    files = [tmp_path / f"{number:06d}.png" for number in range(7, 67)]
    assert frame_folder(files, label_seconds=12.0, fps=5.0, base=7).duration == pytest.approx(12.0)
    with pytest.raises(DataError, match="every number is 1/2 s from 7: 30 s"):
        frame_folder(files, label_seconds=12.0, fps=2.0, base=7)


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


def test_prompts_need_a_sentence_for_every_class(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text("query,text\nHook,a hook\nClipper,\n")
    with pytest.raises(DataError, match="missing Clipper, Grasper"):
        read_prompts(path, ("Hook", "Clipper", "Grasper"))


def test_every_shipped_prompt_is_there_and_fits_the_models():
    texts = read_prompts(ROOT / "data" / "prompts" / "clinical.csv", (*PHASES, *TOOLS))
    assert len(set(texts.values())) == 14
    assert all(len(text.split()) <= 20 for text in texts.values())


def test_the_demo_is_twelve_videos_in_three_splits():
    corpus = load_demo(DataConfig())
    splits = [video.split for video in corpus.videos]
    assert [splits.count(name) for name in ("train", "val", "test")] == [6, 3, 3]


def test_free_queries_replace_the_data_sets_own(copy):
    corpus = load_corpus(DataConfig(root=str(copy), queries="a bleeding; a clip", **LENIENT))
    assert [query.text for query in corpus.queries] == ["a bleeding", "a clip"]


def test_the_check_lists_what_does_not_fit(copy, tmp_path):
    root = write_copy(tmp_path, [1, 2, 15], seconds=6)
    write_video(root / "videos" / "video02.mp4", frames=25 * 8)
    (root / "phase_annotations" / "video15-phase.txt").unlink()
    check = check_cholec80(root, length_of=lambda path: probe(path).duration)
    assert list(check.videos["id"]) == ["video01", "video02", "video15"]
    assert len(check.misfits) == 2
    assert "video02: the video lasts 8.00 s, its 151 label rows 6.04 s" in check.misfits
    assert "video15: no phase file" in check.misfits
    totals = check.totals.set_index("quantity")
    assert totals.loc["tool rows, videos 1-40", "found"] == 18
    assert totals.loc["tool rows, videos all", "known"] == 184_498


def test_the_check_is_a_command(copy):
    command = [sys.executable, "-m", "xclip_module.datasets.cholec80"]
    done = subprocess.run([*command, copy], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "video41" in done.stdout
    assert "184498" in done.stdout
    assert "no misfits" in done.stdout
    wrong = subprocess.run([*command, "nowhere"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert wrong.returncode == 3
    assert wrong.stderr.startswith("error: data root not found: nowhere")


def test_two_prompt_files_of_one_name_stay_two_sets(tmp_path):
    paths = [str(tmp_path / folder / "own.csv") for folder in "ab"]
    assert list(prompt_sets(["clinical", *paths])) == ["clinical", *paths]
    assert list(prompt_sets([paths[0], paths[0]])) == ["own"]
    assert {"class_names", "clinical", "templates"} == set(prompt_sets(["all"]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("text\na tool, in the belly\nan organ, in the dark\n", "row 2"),
        ("text\na tool\nan organ, in the dark\n", "row 3"),
        ("sentence\na tool\n", "no column text"),
        ("text\n\n", "no background sentence"),
    ],
)
def test_a_sentence_with_a_bare_comma_is_refused_and_never_cut(tmp_path, text, words):
    path = tmp_path / "own.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        read_background(str(path))
    path.write_text('text\n"a tool, in the belly"\n')
    assert read_background(str(path)) == ("a tool, in the belly",)


def test_a_class_with_two_sentences_is_refused(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("query,text\na,one\na,two\n")
    with pytest.raises(DataError, match="two sentences for one class"):
        read_prompts(path, ["a"])


def test_only_a_bare_name_means_a_shipped_prompt_set(tmp_path):
    assert prompt_file("clinical").is_file()
    assert prompt_file(str(tmp_path / "clinical")) == tmp_path / "clinical"
