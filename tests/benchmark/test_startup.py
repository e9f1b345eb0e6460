"""What the start-up benchmark measures."""

from xclip_module.benchmark import startup


def test_each_way_gets_its_median(monkeypatch):
    seconds = iter([9.0, 1.0, 7.0, 3.0, 8.0, 2.0])
    monkeypatch.setattr(startup, "_help_seconds", lambda way: next(seconds))
    monkeypatch.setattr(startup, "_run_seconds", lambda way: (4.0, 5.0, 6.0))
    rows = startup.run()[2:]
    assert [row.split()[-4:] for row in rows] == [["8.00", "4.00", "5.00", "6.00"], ["2.00", "4.00", "5.00", "6.00"]]


def test_a_run_says_its_first_line_before_its_first_frames():
    line, decoded, encoded = startup._run_seconds(startup._WHEN_USED)
    assert 0 < line < decoded < encoded
