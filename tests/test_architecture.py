"""The house holds: each line lives in the room that it can live in, and rooms have no doors between them.

The rules go by folder. Each test looks at everything and names all offenders at once.
"""

import ast
import dataclasses
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from xclip_module import config

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "xclip_module"
TOP_LEVEL = {
    "run_zeroshot.py",
    "run_linear_probe.py",
    "run_finetune.py",
    "xclip_config.py",
    "xclip_module",
    "data",
    "requirements.txt",
    "README.md",
    "tests",
}
SCRIPTS = [path for path in sorted(ROOT.glob("*.py")) if path.name in TOP_LEVEL]
MODULES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in [*MODULES, *SCRIPTS]}

# What any project would need, and the words that everybody uses.
FLOOR = {"run", "config", "sections", "errors", "interface"}
ROOMS = {"video", "datasets", "models", "features", "moments", "training", "evaluation", "reporting"}
# Who may know whom, beside the floor and itself. Scripts, check and benchmark may know all.
ABOVE = {"tasks": ROOMS, "probe": {*ROOMS, "tasks"}, "finetune": {*ROOMS, "tasks"}}
COMPOSITION = {"check", "benchmark"}
# What takes seconds to import, and the only folders whose files may import it at their top.
HEAVY = {
    "torch": {"models", "features", "training", "video", "tasks", "probe", "finetune", "benchmark", "evaluation"},
    "torchvision": {"models", "video", "training"},
    "transformers": {"models", "benchmark"},
    "matplotlib": {"reporting", "tasks"},
    "sklearn": {"benchmark"},
    "pandas": {"datasets"},
}


def name_of(path):
    """Of `xclip_module/models/weights.py`: "models.weights"; of a package its own name."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module):
    return module.split(".")[0]


def imported(tree):
    """Dotted names below the package of all modules that are imported anywhere, also inside functions."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import, line {node.lineno}"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    modules = {name_of(path) for path in MODULES}
    return {name.removeprefix("xclip_module.") for name in names if name.startswith("xclip_module.")} & modules


IMPORTS = {name_of(path): imported(TREES[path]) for path in MODULES}


def at_the_top(tree):
    """First words of what a file imports as soon as it is imported itself; not what only a type checker reads."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


def is_command(path):
    """Whether `python -m` runs it: a command is composition."""
    return path.name == "__main__.py" or '__name__ == "__main__"' in path.read_text()


def allowed(path):
    room = room_of(name_of(path))
    if room in COMPOSITION or not room or is_command(path):
        return None
    return {room, *FLOOR, *ABOVE.get(room, ())} if room not in FLOOR else FLOOR


def test_a_room_imports_the_floor_and_itself_and_tasks_no_regime():
    wrong = []
    for path in MODULES:
        known = allowed(path)
        others = IMPORTS[name_of(path)] if known is not None else ()
        wrong += [f"{name_of(path)} imports {other}" for other in sorted(others) if room_of(other) not in known]
    assert not wrong


def test_no_task_imports_another():
    wrong = []
    for module, others in IMPORTS.items():
        tasks = {name.split(".")[1] for name in {module, *others} if name.startswith("tasks.")} & {
            path.name for path in (PACKAGE / "tasks").iterdir() if path.is_dir()
        }
        if module.startswith("tasks.") and module.split(".")[1] in tasks and len(tasks) > 1:
            wrong.append(f"{module}: {sorted(tasks)}")
    assert not wrong


def test_no_module_imports_itself_over_others():
    """Imports inside functions count."""
    reached = {module: set(others) - {module} for module, others in IMPORTS.items()}
    for _ in range(len(reached).bit_length()):
        reached = {module: others.union(*(reached[other] for other in others)) for module, others in reached.items()}
    assert not sorted(module for module, others in reached.items() if module in others)


def test_only_the_rooms_that_use_them_import_heavy_libraries_at_their_top():
    wrong = []
    for path in MODULES:
        for library in set(at_the_top(TREES[path])) & set(HEAVY):
            if room_of(name_of(path)) not in HEAVY[library]:
                wrong.append(f"{name_of(path)}: {library}")
    assert not wrong


def test_no_room_takes_the_whole_configuration():
    takers = defaultdict(list)
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                annotations = [arg.annotation for arg in ast.walk(node.args) if isinstance(arg, ast.arg)]
                names = {n.id for a in annotations if a is not None for n in ast.walk(a) if isinstance(n, ast.Name)}
                if "Config" in names:
                    takers[path.relative_to(ROOT).parts[1:2][0] if path in MODULES else "script"].append(node.name)
    assert not {room: takers[room] for room in ROOMS | {"run"} if takers[room]}
    assert sum(map(len, takers.values())) <= 25, dict(takers)


def test_files_fit_400_lines_and_functions_50():
    long = [path for path in TREES if len(path.read_text().splitlines()) > 400]
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= 50:
                long.append(f"{path}: {node.name}")
    assert not long


def test_names_are_said_once_and_say_something():
    """A class name once in the package; no local called `found`; no catch-all file; few loose files."""
    classes = defaultdict(list)
    wrong = []
    for path in MODULES:
        for node in ast.walk(TREES[path]):
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(name_of(path))
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == "found":
                wrong.append(f"{name_of(path)}, line {node.lineno}: found")
    wrong += [f"{name} in {files}" for name, files in classes.items() if len(files) > 1]
    wrong += [path.name for path in MODULES if path.stem in {"utils", "misc", "helpers", "common"}]
    assert not wrong
    assert len([path for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]) <= 8


def test_nothing_happens_at_import_and_the_users_file_is_never_imported():
    """Beside definitions only constants; under spawn, workers would run the user's file again, after an edit."""
    wrong = []
    for path, tree in TREES.items():
        calls = [node for node in tree.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
        wrong += [f"{path}, line {node.lineno}" for node in calls]
        wrong += [f"{path} imports xclip_config" for name in at_the_top(tree) if name == "xclip_config"]
    assert not wrong


def test_every_key_has_a_reason_and_is_read_outside_the_schema():
    read = {
        node.attr
        for path in MODULES
        if name_of(path) != "sections"
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.Attribute)
    }
    keys = [(section, key) for section in config.sections().values() for key in dataclasses.fields(section)]
    assert not [f"{section.__name__}.{key.name}" for section, key in keys if key.name not in read]
    assert not [f"{section.__name__}.{key.name}" for section, key in keys if not key.metadata["reason"]]


def test_no_file_is_read_by_running_it():
    """Pickle without a restricted unpickler, torch.load without weights_only, NumPy with allow_pickle."""
    wrong = []
    for path, tree in TREES.items():
        for node in [node for node in ast.walk(tree) if isinstance(node, ast.Call)]:
            call, words = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            if (
                call in {"pickle.load", "pickle.loads", "eval", "exec"}
                or (call == "torch.load" and words.get("weights_only") != "True")
                or words.get("allow_pickle", "False") != "False"
            ):
                wrong.append(f"{path}, line {node.lineno}: {call}")
    assert not wrong


def test_the_top_level_is_the_users_card():
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if not listing:
        pytest.skip("not a git checkout")
    top = {name.split("/")[0] for name in listing.splitlines() if not name.startswith(".")}
    assert top <= TOP_LEVEL


def test_the_rules_see_what_breaks_them():
    """Each rule on a made-up offender: a rule that cannot fail holds nothing."""
    inside = ast.parse("def f():\n    from xclip_module.models import weights\n")
    assert imported(inside) == {"models", "models.weights"}
    typed = ast.parse("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\nimport numpy.linalg\n")
    assert list(at_the_top(typed)) == ["typing", "numpy"]
    assert allowed(PACKAGE / "video" / "inspect.py") == {"video", *FLOOR}
    assert "tasks" not in allowed(PACKAGE / "tasks" / "encode.py") - {"tasks"}
    assert not {"probe", "finetune"} & allowed(PACKAGE / "tasks" / "encode.py")
