import logging

from xclip_module.run.progress import Progress


def test_progress_is_plain_lines_where_nobody_watches(caplog, monkeypatch):
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr("xclip_module.run.progress.time.monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO), Progress(4, name="videos", unit="videos") as progress:
        for _ in range(4):
            progress.advance(1, "video07")
    assert "videos: 2.0 of 4 videos" in caplog.text
    assert "left, video07" in caplog.text
    assert "\r" not in caplog.text
