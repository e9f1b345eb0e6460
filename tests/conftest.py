import logging
import os
import signal

import hypothesis
import pytest
import torch
from hypothesis import HealthCheck

from xclip_module.run import precision
from xclip_module.run.launch import launch

# Tests compare numbers, so they compute alike on every CPU: here, and in all processes that they start.
os.environ[precision.ON_CPU] = "fp32"
# An example may take as long as it takes: another machine is slower, or busy.
hypothesis.settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis.settings.load_profile("any machine")


def pytest_addoption(parser):
    what = "what this process takes the CPU for: one with bf16 units, without, or as it is"
    parser.addoption("--bf16-units", choices=("own", "on", "off"), default="own", help=what)


@pytest.fixture(scope="session", autouse=True)
def _units(pytestconfig):
    said = pytestconfig.getoption("--bf16-units")
    with pytest.MonkeyPatch.context() as patch:
        if said != "own":
            patch.setattr(precision, "_has_bf16_units", lambda: said == "on")
        yield


@pytest.fixture
def unpinned(monkeypatch):
    """For tests of what "auto" is on a CPU."""
    monkeypatch.delenv(precision.ON_CPU)


@pytest.fixture
def start(tmp_path, capsys):
    """Runs a main function as a script in a folder of its own; gives exit code and what was printed to stderr."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number, handler in handlers.items():
        if handler == signal.SIG_IGN:  # under nohup or behind "&": a run would ignore it as well
            signal.signal(number, signal.SIG_DFL)

    def run(main, *arguments, name="x", **options):
        words = [f"--run.root={tmp_path / 'runs'}", f"--run.name={name}", "--run.device=cpu", *map(str, arguments)]
        with pytest.raises(SystemExit) as ended:
            launch(main, script=str(tmp_path / "run_test.py"), arguments=words, **options)
        return ended.value.code or 0, capsys.readouterr().err

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert not logging.getLogger("xclip_module").handlers


@pytest.fixture
def one_thread():
    """Tiny models gain nothing from a second thread, and wait for it where the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
