"""The house rules that no linter knows: which folder is a package, who imports whom, what a device has to load."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")  # tomli comes with pytest

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

STOREYS = ("runtime", "calibration", "build_engine", "benchmarks")
"""The four rooms from the ground up: each may import what stands before it, never what stands after."""

# What `import fcnedge.runtime` must never load: the weight of a build machine, or a package that a device lacks.
HEAVY = {"PIL", "cv2", "keras", "onnx", "onnxruntime", "openvino", "pycuda", "tensorflow", "tensorrt", "torch"}


class Import(NamedTuple):
    file: str
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def package_folders() -> list[Path]:
    return sorted({file.parent.relative_to(ROOT) for room in STOREYS for file in source_files(room)})


def source_files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imports_of(file: Path, *, namespace: str) -> Iterator[Import]:
    """All imports of a file, wherever they stand (lazy ones too), under their absolute names."""
    path = file.relative_to(ROOT)
    package = ".".join([namespace, *path.parent.parts]).strip(".")
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), filename=str(file))):
        if not isinstance(node, ast.Import | ast.ImportFrom | ast.Call):
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            base = importlib.util.resolve_name(base, package) if node.level else base
            # `from fcnedge import runtime` names a room only in its list of names
            names = [f"{base}.{alias.name}" for alias in node.names]
        elif ast.unparse(node.func).endswith(("import_module", "__import__")):
            constants = [argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)]
            names = [importlib.util.resolve_name(value, package) for value in constants if isinstance(value, str)]
        for name in names:
            yield Import(str(path), node.lineno, name)


def room_of(module: str) -> str | None:
    """Give the room that an absolute module name lies in; None outside of fcnedge."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "fcnedge" else None


def modules_loaded_by(statement: str) -> set[str]:
    """Top-level names of everything that a fresh interpreter loads for a statement, from -X importtime."""
    command = [sys.executable, "-X", "importtime", "-c", statement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return set(re.findall(r"^import time:\s+\d+ \|\s+\d+ \|\s+(\w+)", done.stderr, flags=re.MULTILINE))


def test_packages_of_pyproject_are_the_folders_that_hold_python() -> None:
    folders = {".".join(["fcnedge", *folder.parts]) for folder in package_folders()}
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == folders


@pytest.mark.parametrize("folder", package_folders(), ids=str)
def test_package_folder_has_an_init(folder: Path) -> None:
    assert (ROOT / folder / "__init__.py").is_file(), f"{folder} would be left out by tools that look for __init__.py"


def test_type_checkers_find_each_room_under_its_import_name() -> None:
    links = {link.name: link.resolve() for link in (ROOT / ".typing" / "fcnedge").iterdir()}
    assert links == {room: ROOT / room for room in STOREYS}


@pytest.mark.parametrize("room", STOREYS)
def test_room_imports_only_what_stands_below_it(room: str) -> None:
    allowed = STOREYS[: STOREYS.index(room) + 1]
    found = [each for file in source_files(room) for each in imports_of(file, namespace="fcnedge")]
    upward = [str(each) for each in found if room_of(each.module) not in (None, *allowed)]
    assert not upward, "imports point downwards only:\n" + "\n".join(upward)


def test_no_room_is_imported_under_its_bare_name() -> None:
    files = [(file, "fcnedge") for room in STOREYS for file in source_files(room)]
    files += [(file, "") for file in sorted((ROOT / "tests").rglob("*.py"))]
    found = [each for file, namespace in files for each in imports_of(file, namespace=namespace)]
    bare = [str(each) for each in found if each.module.split(".")[0] in STOREYS]
    assert not bare, "a room has a second identity under its bare name; write fcnedge.…:\n" + "\n".join(bare)


def test_relative_imports_stay_inside_their_room() -> None:
    leaving = [
        f"{file.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}"
        for room in STOREYS
        for file in source_files(room)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level > len(file.relative_to(ROOT).parent.parts)
    ]
    assert not leaving, "across rooms write `from fcnedge.…`:\n" + "\n".join(leaving)


def test_importing_the_runtime_loads_numpy_and_nothing_else() -> None:
    before, after = modules_loaded_by("pass"), modules_loaded_by("import fcnedge.runtime")
    assert "fcnedge" in after, "the import trace was not read"
    library = {name.lstrip("_") for name in sys.stdlib_module_names}
    loaded = {name for name in after - before if name.lstrip("_") not in library}
    assert not loaded & HEAVY
    # the trace also shows what the standard library and NumPy asked for in vain (org.python, pickle5)
    assert {name for name in loaded if importlib.util.find_spec(name)} == {"fcnedge", "numpy"}


@pytest.mark.parametrize("name", sorted(PYPROJECT["project"]["scripts"]))
def test_console_script_is_installed_and_can_be_loaded(name: str) -> None:
    installed = importlib.metadata.entry_points(group="console_scripts", name=name)
    assert [script.value for script in installed] == [PYPROJECT["project"]["scripts"][name]]
    (script,) = installed
    assert callable(script.load())
