import subprocess
import sys
from pathlib import Path

from support.barcode import write_video
from support.cholec80_tree import write_copy

from xclip_module.datasets.cholec80.check import check_cholec80
from xclip_module.video.inspect import probe

ROOT = Path(__file__).parents[3]


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
