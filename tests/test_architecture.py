"""The house holds: imports go down or stay in their room, files and functions stay small, no dead configuration."""

import ast
import dataclasses
import re
import subprocess
from pathlib import Path

import pytest

from xclip_module import config

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "xclip_module"
SCRIPTS = [ROOT / name for name in ("run_zeroshot.py", "run_linear_probe.py", "run_finetune.py", "xclip_config.py")]
MODULES = sorted(PACKAGE.rglob("*.py"))
OWN_CODE = [*MODULES, *(path for path in SCRIPTS if path.exists())]
ROOMS = {"models", "datasets", "training", "evaluation", "reporting"}
# The composition root: what knows every room.
UPPER = {
    *("assemble", "outcome", "benchmark", "outputs", "pictures", "probe_pictures", "check"),
    *("finetuning", "training_data", "validation", "training_log", "training_files"),
    *("recipes", "localisation_training", "retrieval_training", "retrieving", "searching"),
    *("retrieval_pictures", "thumbnails", "ranking"),
    *("sentences", "heads", "probing", "probe_data", "probe_fit", "probe_temporal", "few_shot"),
}
TOP_LEVEL = {
    *("run_zeroshot.py", "run_linear_probe.py", "run_finetune.py", "xclip_config.py", "xclip_module"),
    *("data", "requirements.txt", "README.md", "tests"),
}


def name_of(path: Path) -> str:
    """Of `xclip_module/models/weights.py`: "models/weights"."""
    return str(path.relative_to(PACKAGE).with_suffix(""))


def imported(path: Path) -> set[str]:
    """Modules of our package that a file imports, anywhere in it, as paths below the package."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            target = PACKAGE.parent / Path(*name.split("."))
            if name.startswith("xclip_module.") and (target.with_suffix(".py").exists() or target.is_dir()):
                found.add("/".join(name.split(".")[1:]))
    return found


def room_of(module: str) -> str:
    """The room, "upper" for the composition root, "floor 0" for what everybody may use."""
    first = module.split("/")[0]
    return first if first in ROOMS else "upper" if first in UPPER else "floor 0"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down_or_stay_in_their_room(path):
    own = room_of(name_of(path))
    allowed = {"upper": {*ROOMS, "upper", "floor 0"}, "floor 0": {"floor 0"}}.get(own, {own, "floor 0"})
    wrong = {module for module in imported(path) if room_of(module) not in allowed}
    assert not wrong


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_package_never_imports_the_users_config(path):
    """Under spawn, workers would run the file again and pick up an edit made while the run is live."""
    assert not re.search(r"^\s*(import|from)\s+xclip_config", path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", OWN_CODE, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_fits_400_lines_and_a_function_50(path):
    source = path.read_text()
    assert len(source.splitlines()) <= 400
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno + 1 <= 50, f"{node.name}, line {node.lineno}"


@pytest.mark.parametrize("path", OWN_CODE, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_happens_at_import(path):
    """Beside definitions only constants, decorators' work and the script's own entry."""
    for node in ast.parse(path.read_text()).body:
        is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        assert not is_call, f"line {node.lineno}: {ast.unparse(node)}"


def test_no_config_key_is_dead():
    """Every key of every section is read as an attribute somewhere outside the schema."""
    read = set()
    for path in MODULES:
        if name_of(path) != "sections":
            read |= {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    for section in config.sections().values():
        for key in dataclasses.fields(section):
            assert key.name in read, f"{section.__name__}.{key.name}"


def test_every_key_has_a_reason():
    for section in config.sections().values():
        assert all(key.metadata["reason"] for key in dataclasses.fields(section))


def test_the_top_level_is_the_users_card():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split(
        "\n"
    )
    if not any(tracked):
        pytest.skip("not a git checkout")
    top = {name.split("/")[0] for name in tracked if name and not name.startswith(".")}
    assert top <= TOP_LEVEL


def test_no_file_is_read_by_running_it():
    """Pickle without a restricted unpickler, torch.load without weights_only, NumPy with allow_pickle."""
    for path in OWN_CODE:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            call, words = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert call not in {"pickle.load", "pickle.loads", "eval", "exec"}, f"{path}: {call}"
            assert call != "torch.load" or words.get("weights_only") == "True", path
            assert words.get("allow_pickle", "False") == "False", path


def test_no_catch_all_file_names():
    assert not {"utils.py", "misc.py", "helpers.py", "common.py"} & {path.name for path in MODULES}
