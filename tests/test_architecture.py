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


def allowed(module):
    """The first words of what a module may import; None = everything, of composition and commands."""
    room = room_of(module)
    if room in COMPOSITION or not room or module.endswith(".__main__"):
        return None
    return FLOOR if room in FLOOR else {room, *FLOOR, *ABOVE.get(room, ())}


def through_doors(imports):
    """Imports of what a module's room must not know."""
    return [
        f"{module} imports {other}"
        for module, others in imports.items()
        for other in sorted(others)
        if (known := allowed(module)) is not None and room_of(other) not in known
    ]


def task_of(module):
    """Of "tasks.retrieval.load": "retrieval"; "" of what all tasks share, and of everything else."""
    parts = module.split(".")
    return parts[1] if parts[0] == "tasks" and parts[1:] and (PACKAGE / "tasks" / parts[1]).is_dir() else ""


def between_tasks(imports):
    """Imports of one task by another."""
    pairs = [(module, other) for module, others in imports.items() for other in sorted(others)]
    return [
        f"{one} imports {other}" for one, other in pairs if task_of(one) and task_of(other) not in ("", task_of(one))
    ]


def circles(imports):
    """Modules that import themselves over others."""
    reached = {module: set(others) - {module} for module, others in imports.items()}
    for _ in range(len(reached).bit_length()):  # each turn doubles how far is looked
        reached = {module: others.union(*(reached[other] for other in others)) for module, others in reached.items()}
    return sorted(module for module, others in reached.items() if module in others)


def test_a_room_imports_the_floor_and_itself_and_tasks_no_regime():
    assert not through_doors(IMPORTS)


def test_no_task_imports_another():
    assert not between_tasks(IMPORTS)


def test_no_module_imports_itself_over_others():
    """Imports inside functions count."""
    assert not circles(IMPORTS)


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
    """Each rule on made-up offenders, beside what it must let pass: a rule that cannot fail holds nothing."""
    inside = ast.parse("def f():\n    from xclip_module.models import weights\n")
    assert imported(inside) == {"models", "models.weights"}
    typed = ast.parse("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\nimport numpy.linalg\n")
    assert list(at_the_top(typed)) == ["typing", "numpy"]
    doors = {
        "video.a": {"video.b", "run.c", "interface", "features.d"},
        "tasks.encode": {"video.b", "probe.e"},
        "run.c": {"errors", "video.b"},
        "probe.e": {"tasks.encode", "finetune.f"},
        "check": {"probe.e"},
        "datasets.demo.__main__": {"video.b"},
    }
    expected = ["video.a imports features.d", "tasks.encode imports probe.e", "run.c imports video.b"]
    assert through_doors(doors) == [*expected, "probe.e imports finetune.f"]
    tasks = {"tasks.retrieval.load": {"tasks.encode", "tasks.localisation.load"}, "tasks": {"tasks.retrieval.task"}}
    assert between_tasks(tasks) == ["tasks.retrieval.load imports tasks.localisation.load"]
    ring = {f"run.{n}": {f"run.{(n + 1) % 9}"} for n in range(9)}
    assert circles(ring | {"run.x": {"run.0"}}) == sorted(ring)
