"""A decoder that hangs."""

import subprocess
import sys


def test_a_hung_decoder_ends_the_process_with_the_files_name():
    script = """
import time
from pathlib import Path
from xclip_module.video.watchdog import watching
with watching(Path("quick.mp4"), 0.5):
    pass
with watching(Path("a/stuck.mp4"), 0.5):
    time.sleep(60)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode == 7
    line = "error: decoder hung: a/stuck.mp4: no frame for 0.5 s; "
    assert run.stderr == f"{line}try: ffmpeg -i a/stuck.mp4 -c:v libx264 -crf 18 a/stuck.fixed.mp4\n"
