"""The house: floors, rooms, sizes. The table below is the map that the README prints."""

import ast
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pipeline"

FLOORS: list[tuple[str, list[str]]] = [
    ("ground", ["version", "errors", "digest", "durable", "processors", "memory", "progress"]),
    ("values", ["spec", "samples", "config", "results"]),
    ("parts", ["inputs", "pooling", "fusion", "optimization", "cache"]),
    ("assemblies", ["backbones", "heads"]),
    ("extraction", ["extraction"]),
    ("model", ["model"]),
    ("stages", ["embedding", "training", "finetuning", "verification"]),
    ("the order", ["run_folder", "flow"]),
    ("doors", ["__init__", "__main__", "cli", "estimators"]),
]
"""Bottom to top. A module may import from lower floors, and nothing from its own."""

SAME_FLOOR: set[tuple[str, str]] = {
    ("config", "spec"),
    ("memory", "errors"),
    ("verification", "embedding"),
    ("finetuning", "training"),
    ("flow", "run_folder"),
    ("__init__", "estimators"),
    ("__main__", "cli"),
}
"""The few imports within a floor that the order of the table allows."""

ROOMS = {
    "h5py": {"cache"},
    "timm": {"backbones"},
    "openvino": {"backbones"},
    "torchvision": {"backbones", "inputs"},
    "torchcodec": {"inputs"},
    "PIL": {"inputs", "samples"},
    "pillow_heif": {"inputs"},
    "cyclopts": {"cli"},
}
"""Where a library may be imported."""

NO_TORCH_AT_TOP = {"samples", "spec", "fusion", "cache", "heads", "model", "training", "config"}
MAX_LINES = 250

FLOOR_OF = {name: level for level, (_, names) in enumerate(FLOORS) for name in names}


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    part = path.relative_to(PACKAGE).parts[0]
    return part.removesuffix(".py")


def imports(path: Path) -> list[tuple[str, int]]:
    """Every imported module of a file, lazy and TYPE_CHECKING ones too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.module, node.lineno))
            if node.module == "pipeline":
                found += [(f"pipeline.{alias.name}", node.lineno) for alias in node.names]
    return found


def code_lines(path: Path) -> int:
    """Lines that hold code: no blank lines, comments or docstrings."""
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    lines: set[int] = set()
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type not in (
                tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT,
                tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER,
            ):  # fmt: skip
                lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            text = node.body[0]
            lines -= set(range(text.lineno, text.end_lineno + 1))
    return len(lines)


def test_every_module_has_its_floor():
    homeless = {room_of(path) for path in files()} - set(FLOOR_OF)
    assert not homeless, f"not in the FLOORS table: {sorted(homeless)}"


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downward(path):
    room = room_of(path)
    for name, line in imports(path):
        parts = name.split(".")
        if parts[0] != "pipeline" or len(parts) < 2:
            continue
        target = parts[1]
        if target == room:
            continue
        assert target in FLOOR_OF, f"{path.name}:{line} imports {name}: give it a floor"
        allowed = FLOOR_OF[target] < FLOOR_OF[room] or (room, target) in SAME_FLOOR
        assert allowed, (
            f"{path.relative_to(PACKAGE)}:{line} (floor {FLOOR_OF[room]}, {room}) imports {name} "
            f"(floor {FLOOR_OF[target]}): imports go strictly downward. Move what it needs to a "
            "lower floor, or let a higher one bring the two together."
        )


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_neighbours_enter_a_wing_by_its_door(path):
    for name, line in imports(path):
        parts = name.split(".")
        if parts[0] == "pipeline" and len(parts) > 2 and parts[1] != room_of(path):
            assert not (PACKAGE / parts[1]).is_dir(), (
                f"{path.name}:{line} imports {name}: import from pipeline.{parts[1]}"
            )


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_libraries_stay_in_their_rooms(path):
    for name, line in imports(path):
        library = name.split(".")[0]
        rooms = ROOMS.get(library)
        assert rooms is None or room_of(path) in rooms, (
            f"{path.relative_to(PACKAGE)}:{line} imports {library}, which lives in {sorted(rooms)}"
        )


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_classes_stay_small(path):
    assert code_lines(path) <= MAX_LINES, f"{path.name}: more than {MAX_LINES} code lines"


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_torch_is_not_imported_at_the_top_of_light_rooms(path):
    if room_of(path) not in NO_TORCH_AT_TOP:
        return
    for node in ast.parse(path.read_text()).body:
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not any(name.split(".")[0] == "torch" for name in names), path


def test_nothing_is_imported_from_the_package_itself():
    for path in files():
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and node.module == "pipeline"), path
            assert not (isinstance(node, ast.ImportFrom) and node.level), path


def test_only_the_command_line_prints():
    for path in files():
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        prints = [n for n in calls if isinstance(n.func, ast.Name) and n.func.id == "print"]
        assert not prints or room_of(path) == "cli", f"{path.name}:{prints[0].lineno} prints"


@pytest.mark.parametrize("room", ["", ".training", ".samples", ".cache", ".heads", ".model"])
def test_light_rooms_load_no_torch(room):
    program = f"import pipeline{room}, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split()[:1] == ["False"], done.stderr
