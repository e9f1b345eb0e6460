"""The words that everybody imports cost nothing to import."""

import subprocess
import sys
from pathlib import Path


def test_the_interface_is_imported_without_torch():
    code = "import sys, xclip_module.interface; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
