import pytest
from support.made_run import Made


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A run of made-up scores; tests read it and change only copies."""
    return Made(tmp_path_factory.mktemp("made") / "first")


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    """The same task with other scores."""
    return Made(tmp_path_factory.mktemp("made") / "second", seed=1)
