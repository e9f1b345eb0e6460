"""The synthetic demo: what its generator promises, and that the committed files keep to Cholec80's layout."""

import io
import itertools
from pathlib import Path

import av
import numpy as np
import pytest

from xclip_module.datasets.cholec80.corpus import PHASES, TOOLS
from xclip_module.datasets.demo import __main__ as demo_command
from xclip_module.datasets.demo import plan, writing
from xclip_module.datasets.demo.scene import FIELD_RADIUS, HEIGHT, WIDTH
from xclip_module.datasets.demo.tools import Pose, draw, visible_tip

COMMITTED = Path(__file__).parents[2] / "data" / "demo"
NUMBERS = range(1, 13)
MIDDLE, RIM = (WIDTH / 2, HEIGHT / 2), WIDTH / 2 + FIELD_RADIUS


@pytest.fixture(scope="module")
def operation() -> plan.Operation:
    return plan.plan_operation(5, 7)


def _frames(operation: plan.Operation, start: int, stop: int) -> np.ndarray:
    return np.stack(list(writing.render(operation, start, stop)))


def _rows(kind: str, number: int) -> list[list[str]]:
    text = (COMMITTED / f"{kind}_annotations" / f"video{number:02d}-{kind}.txt").read_text()
    return [line.split("\t") for line in text.splitlines()]


def _alone(operation: plan.Operation, tool: str, *, presence: float) -> plan.Operation:
    """The operation with one instrument only, held at the middle of the picture while the camera stands still."""
    frames = operation.seconds * plan.FPS
    nothing, here = np.zeros(frames), np.full(frames, presence)
    view = np.tile([20.0, 10.0, 1.0, 0.0], (frames, 1))
    arms = tuple(
        plan.Arm(arm.tool, nothing + 20, nothing + 10, here if name == tool else nothing, nothing + 0.5)
        for name, arm in zip(plan.ARMS, operation.arms, strict=True)
    )
    return operation._replace(arms=arms, view=view, retrieved=nothing, tug=np.zeros((frames, 2)))


def test_same_seed_gives_same_pixels_and_labels(operation):
    again = plan.plan_operation(5, 7)
    assert np.array_equal(_frames(operation, 400, 403), _frames(again, 400, 403))
    assert writing.phase_file(operation) == writing.phase_file(again)
    assert writing.tool_file(operation) == writing.tool_file(again)


def test_same_pictures_give_the_same_bytes(operation):
    pictures = _frames(operation, 400, 430)
    assert writing.encode(iter(pictures)) == writing.encode(iter(pictures))


def test_other_seed_gives_other_pixels_and_labels(operation):
    other = plan.plan_operation(6, 7)
    assert np.abs(_frames(operation, 400, 401).astype(int) - _frames(other, 400, 401)).mean() > 5
    assert writing.phase_file(operation) != writing.phase_file(other)
    assert writing.tool_file(operation) != writing.tool_file(other)


def test_a_frame_does_not_depend_on_where_drawing_began(operation):
    assert np.array_equal(_frames(operation, 396, 402)[4:], _frames(operation, 400, 402))


def test_the_field_is_round_on_black(operation):
    picture = _frames(operation, 400, 401)[0]
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    radius = np.hypot(columns - MIDDLE[0], rows - MIDDLE[1])
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert picture[radius > FIELD_RADIUS].max() == 0
    assert picture[radius < FIELD_RADIUS - 6].mean() > 40


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tip_is_seen_inside_the_field_and_not_outside(tool):
    assert visible_tip(Pose(tool, *MIDDLE, 0.0)) == 1
    assert visible_tip(Pose(tool, WIDTH + 120, HEIGHT / 2, 0.0)) == 0


def test_visible_part_of_a_straight_tip_worked_by_hand():
    # The irrigator's tip is a tube 32 pixels long whose end lies at the pose; moved d beyond the rim it keeps 1 - d/32.
    for beyond in (8, 16, 24):
        assert visible_tip(Pose("Irrigator", RIM + beyond, MIDDLE[1], 0.0)) == pytest.approx(1 - beyond / 32, abs=0.05)


@pytest.mark.parametrize("tool", TOOLS)
def test_tool_row_is_what_is_seen(operation, tool):
    bare = _frames(_alone(operation, "none", presence=0), 0, 1)[0].astype(int)
    inside, outside = _alone(operation, tool, presence=1), _alone(operation, tool, presence=0.05)
    assert writing.visible_tools(inside, 0) == tuple(int(name == tool) for name in TOOLS)
    assert np.abs(_frames(inside, 0, 1)[0] - bare).mean() > 1
    assert writing.visible_tools(outside, 0) == (0,) * len(TOOLS)
    assert np.abs(_frames(outside, 0, 1)[0] - bare)[20:-20, 60:-60].max() == 0


def test_every_tool_looks_different():
    grey = np.full((HEIGHT, WIDTH, 3), 0.5, np.float32)
    seen = {}
    for tool in TOOLS:
        changed = draw(grey, Pose(tool, *MIDDLE, 0.0, 0.5, 1.3))
        mask = np.abs(changed - grey).max(axis=2) > 0.12
        mask[:, : int(MIDDLE[0]) - 45] = False
        seen[tool] = mask, changed[mask].mean(axis=0)
    for one, other in itertools.combinations(TOOLS, 2):
        (mask, colour), (mask2, colour2) = seen[one], seen[other]
        shape = 1 - (mask & mask2).sum() / (mask | mask2).sum()
        assert shape + np.abs(colour - colour2).max() > 0.5, (one, other, shape, colour, colour2)


@pytest.mark.parametrize("name", plan.LOOK_RANGES["test"])
def test_the_other_hospital_shares_no_look(name):
    for split in ("train", "val"):
        home, away = plan.LOOK_RANGES[split][name], plan.LOOK_RANGES["test"][name]
        assert home[1] < away[0] or away[1] < home[0]
    for number in NUMBERS:
        low, high = plan.LOOK_RANGES[plan.split_of(number)][name]
        assert low <= getattr(plan.plan_operation(writing.SEED, number).look, name) <= high


def test_splits_share_no_seed():
    seeds = {
        split: {plan.video_seed(seed, n) for seed in range(20) for n in numbers}
        for split, numbers in plan.SPLITS.items()
    }
    assert sorted(itertools.chain(*plan.SPLITS.values())) == list(NUMBERS)
    assert all(not seeds[a] & seeds[b] for a, b in itertools.combinations(seeds, 2))


def test_no_video_of_one_split_is_or_looks_like_one_of_another():
    """What is trained on is not what is judged: neither files nor labels nor any number of a look come twice."""
    files = {n: (COMMITTED / "videos" / f"video{n:02d}.mp4").read_bytes() for n in NUMBERS}
    labels = {n: (COMMITTED / "phase_annotations" / f"video{n:02d}-phase.txt").read_text() for n in NUMBERS}
    looks = {n: plan.plan_operation(writing.SEED, n).look for n in NUMBERS}
    for one, other in itertools.combinations(NUMBERS, 2):
        assert files[one] != files[other]
        assert labels[one] != labels[other]
        assert not set(looks[one]) & set(looks[other])


def test_writes_the_three_files_of_a_video(operation, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "plan_operation", lambda seed, number: operation._replace(seconds=2))
    writing.write_video(tmp_path, 5, 7)
    video = tmp_path / "videos" / "video07.mp4"
    with av.open(str(video)) as container:
        pictures = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    assert len(pictures) == 50
    assert np.abs(np.stack(pictures)[::10] - np.stack(list(writing.render(operation, 0, 50)))[::10]).mean() < 6
    assert len((tmp_path / "phase_annotations" / "video07-phase.txt").read_text().splitlines()) == 1 + 51
    assert len((tmp_path / "tool_annotations" / "video07-tool.txt").read_text().splitlines()) == 1 + 2
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == ["video07.mp4"]


def test_command_line_refuses_an_unknown_video(capsys):
    with pytest.raises(SystemExit):
        demo_command.main(["--videos", "01,13"])
    assert "expected numbers from 01 to 12" in capsys.readouterr().err


@pytest.mark.parametrize("number", NUMBERS)
def test_committed_labels_fit_their_video(number):
    phases, tools = _rows("phase", number), _rows("tool", number)
    seconds = len(tools) - 1
    with av.open(str(COMMITTED / "videos" / f"video{number:02d}.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate, stream.pix_fmt) == ("h264", 25, "yuv420p")
        assert sum(packet.size > 0 for packet in container.demux(stream)) == 25 * seconds
    assert phases[0] == ["Frame", "Phase"]
    assert tools[0] == ["Frame", *TOOLS]
    assert [int(row[0]) for row in phases[1:]] == list(range(25 * seconds + 1))
    assert [int(row[0]) for row in tools[1:]] == list(range(0, 25 * seconds, 25))
    assert {value for row in tools[1:] for value in row[1:]} == {"0", "1"}
    runs = [name for name, _ in itertools.groupby(row[1] for row in phases[1:])]
    assert len(set(runs)) == len(runs)
    assert set(runs) <= set(PHASES)


@pytest.mark.parametrize("number", NUMBERS)
def test_committed_labels_are_the_generators(number):
    operation = plan.plan_operation(writing.SEED, number)
    written = COMMITTED / "phase_annotations" / f"video{number:02d}-phase.txt"
    assert writing.phase_file(operation) == written.read_text()
    # A tip may lie so near to one half that another machine's sine puts it on the other side.
    drawn = np.array([line.split("\t") for line in writing.tool_file(operation).splitlines()])
    assert (drawn == np.array(_rows("tool", number))).mean() > 0.995


def test_committed_video_is_the_generators():
    with av.open(str(COMMITTED / "videos" / "video10.mp4")) as container:
        seen = next(itertools.islice(container.decode(video=0), 30, None)).to_ndarray(format="rgb24")
    drawn = next(writing.render(plan.plan_operation(writing.SEED, 10), 30, 31))
    assert np.abs(seen.astype(int) - drawn).mean() < 5


def test_committed_operations_vary_as_real_ones_do():
    orders = {n: [name for name, _ in itertools.groupby(row[1] for row in _rows("phase", n)[1:])] for n in NUMBERS}
    full = [number for number, order in orders.items() if order == list(PHASES)]
    assert len(full) >= 6
    for numbers in plan.SPLITS.values():
        assert set(numbers) - set(full)
        for phase in PHASES:
            assert sum(phase in orders[number] for number in numbers) >= len(numbers) - 1
    shares = [np.mean([row[1] == PHASES[1] for row in _rows("phase", number)[1:]]) for number in NUMBERS]
    assert min(shares) < 0.25
    assert max(shares) > 0.45


def test_committed_files_are_small():
    files = [
        path
        for folder in ("videos", "phase_annotations", "tool_annotations")
        for path in (COMMITTED / folder).iterdir()
    ]
    assert len(files) == 36
    assert max(path.stat().st_size for path in files) < 5e6
    assert sum(path.stat().st_size for path in files) < 10.5e6


def test_committed_videos_start_without_seeking_to_their_end():
    for path in (COMMITTED / "videos").iterdir():
        head = io.BytesIO(path.read_bytes()).read(65536)
        assert 0 < head.find(b"moov") < head.find(b"mdat")
