import pytest
from support.cholec80_tree import write_copy


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """Three videos of Cholec80 with their labels, one of each split."""
    return write_copy(tmp_path_factory.mktemp("cholec80"), [1, 33, 41])
