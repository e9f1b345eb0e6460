import subprocess
import sys
from pathlib import Path

import pytest

import xclip_module.models

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("place", "answer"), [("data/demo/model", "data/demo/model"), ("no/such.pt", "WeightsError: no such checkpoint")]
)
def test_weights_are_looked_for_without_torch(place, answer):
    words = f"""
import sys
from xclip_module.models.hub import locate
try:
    print(locate({place!r}))
except ValueError as error:
    print(f"{{type(error).__name__}}: {{error}}")
assert not {{"torch", "transformers"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(answer)


def test_every_public_name_is_there_on_first_use_and_no_other():
    assert all(callable(getattr(xclip_module.models, name)) for name in xclip_module.models.__all__)
    with pytest.raises(AttributeError, match="no attribute 'load_chekpoint'"):
        _ = xclip_module.models.load_chekpoint
