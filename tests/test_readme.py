"""tests/README.md names tests that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_test_that_the_table_names_is_there():
    wrong = []
    for name in re.findall(r"`(tests/[\w/]+\.py(?:::\w+)?)`", (ROOT / "tests" / "README.md").read_text()):
        path, _, function = name.partition("::")
        if not (ROOT / path).is_file() or (function and f"def {function}(" not in (ROOT / path).read_text()):
            wrong.append(name)
    assert not wrong
