import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cholec80_tree import write_labels

from xclip_module.datasets.cholec80.corpus import PHASES, TOOLS
from xclip_module.datasets.cholec80.labels import read_phases, read_tools, runs
from xclip_module.errors import DataError

PHASE_ROWS = ["Frame\tPhase", "0\tPreparation", "1\tPreparation", "2\tClippingCutting"]


@pytest.fixture
def file(tmp_path):
    def write(lines, newline="\n"):
        path = tmp_path / "video01-phase.txt"
        path.write_bytes((newline.join(lines) + newline).encode("utf-8"))
        return path

    return write


def test_phases_of_25_fps_rows_are_segments_in_seconds(tmp_path):
    write_labels(tmp_path, 1, seconds=9)
    track = read_phases(tmp_path / "phase_annotations" / "video01-phase.txt", PHASES)
    assert (track.rows, track.period) == (9 * 25 + 1, 0.04)
    assert track.segments["Preparation"] == ((0.0, 3.0),)
    assert track.segments["CalotTriangleDissection"] == ((3.0, 6.0),)
    assert track.segments["ClippingCutting"] == ()


def test_tools_of_1_fps_rows_are_segments_in_seconds(tmp_path):
    write_labels(tmp_path, 1, seconds=9)
    track = read_tools(tmp_path / "tool_annotations" / "video01-tool.txt", TOOLS)
    assert (track.rows, track.period, track.seconds) == (9, 1.0, 9.0)
    assert track.segments["Hook"] == ((3.0, 6.0),)
    assert track.segments["Grasper"] == ()


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("first", ["Frame\tPhase", "\ufeffFrame\tPhase", "Frame\t Phase "])
def test_line_ends_and_byte_order_marks_do_not_matter(file, first, newline):
    assert read_phases(file([first, *PHASE_ROWS[1:]], newline), PHASES).segments["Preparation"] == ((0.0, 0.08),)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["Frame\tStep", "0\tPreparation"], r"wrong header: .*line 1: found 'Frame\\tStep', expected.*'Frame\\tPhase'"),
        (["0\tPreparation", "1\tPreparation"], "wrong header"),
        ([*PHASE_ROWS, "3\tCliping"], r"unknown phase: .*line 5: found 'Cliping'; did you mean ClippingCutting"),
        ([*PHASE_ROWS, "4\tPreparation"], r"out of step: .*line 5: found frame '4'"),
        ([*PHASE_ROWS, "x\tPreparation"], r"out of step: .*line 5: found frame 'x'"),
        ([*PHASE_ROWS[:1], "1\tPreparation", "2\tPreparation"], r"out of step: .*line 2: found frame '1'"),
        ([*PHASE_ROWS[:2], "30\tPreparation"], "out of step"),
        (["Frame\tPhase"], "empty label file"),
        (["Frame Phase", "0 Preparation"], r"found 'Frame Phase', expected tab-separated 'Frame\\tPhase'; try: "),
    ],
)
def test_broken_phase_files_name_file_line_found_and_expected(file, lines, message):
    path = file(lines)
    with pytest.raises(DataError, match=message) as caught:
        read_phases(path, PHASES)
    assert path.name in str(caught.value)


def test_a_tool_value_beyond_0_and_1_is_refused_with_its_line(tmp_path):
    write_labels(tmp_path, 1, seconds=9)
    path = tmp_path / "tool_annotations" / "video01-tool.txt"
    lines = path.read_text().splitlines()
    lines[4] = re.sub(r"\d$", "2", lines[4])
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"wrong tool label: .*line 5: found '2' for SpecimenBag"):
        read_tools(path, TOOLS)


@given(st.lists(st.booleans(), max_size=40), st.sampled_from([0.04, 1.0]))
def test_runs_cover_exactly_the_rows_that_are_on(is_on, period):
    segments = runs(np.array(is_on, dtype=bool), period)
    middles = (np.arange(len(is_on)) + 0.5) * period
    covered = [any(a <= t < b for a, b in segments) for t in middles]
    assert covered == is_on
    assert all(b < c for (_, b), (c, _) in zip(segments, segments[1:], strict=False))


@given(st.text(max_size=200))
def test_any_text_is_a_track_or_our_error(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("labels") / "video01-phase.txt"
    path.write_text(text, encoding="utf-8", errors="ignore")
    try:
        track = read_phases(path, PHASES)
    except DataError:
        return
    assert track.rows > 0
