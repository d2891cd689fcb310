"""The wheel as a robot gets it: one namespace, its licence, its weights, and no quarrel with a robot's own modules."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("benchmarks", "build_engine", "calibration", "runtime")

pytestmark = pytest.mark.slow


def run(command: list[str | Path], *, cwd: Path) -> str:
    """Run a command without this process's import paths; give its output, and show it when the command fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy: what an earlier build left in build/lib would end in the wheel."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    out = tmp_path_factory.mktemp("dist")
    # not `-m build`: a folder `build` may lie in the working directory
    command = [sys.executable, "-P"] if sys.version_info >= (3, 11) else [sys.executable]
    run([*command, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source], cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    return zipfile.ZipFile(wheel).namelist()


@pytest.fixture(scope="module")
def device_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the interpreter of an empty environment that holds the wheel and what it asks for, nothing else."""
    environment = tmp_path_factory.mktemp("device") / "venv"
    venv.create(environment, with_pip=True, symlinks=os.name != "nt")
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    run([python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", wheel], cwd=environment)
    return python


def test_wheel_installs_one_top_level_package(names: list[str]) -> None:
    top_level = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert top_level == {"fcnedge"}


def test_wheel_holds_every_source_file_and_no_test(names: list[str]) -> None:
    sources = {f"fcnedge/{file.relative_to(ROOT).as_posix()}" for room in ROOMS for file in (ROOT / room).rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == sources


def test_wheel_holds_the_licence(wheel: Path, names: list[str]) -> None:
    (licence,) = [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
    assert zipfile.ZipFile(wheel).read(licence) == (ROOT / "LICENSE").read_bytes()


def test_wheel_holds_the_weights_and_their_model_cards(names: list[str]) -> None:
    weights = ROOT / "build_engine" / "models" / "weights"
    files = [file for pattern in ("*.safetensors", "*.md") for file in sorted(weights.glob(pattern))]
    if not files:
        pytest.skip(f"{weights.relative_to(ROOT)} has no weights yet")
    assert {f"fcnedge/{file.relative_to(ROOT).as_posix()}" for file in files} <= set(names)


def test_device_install_is_numpy_and_fcnedge(device_python: Path, tmp_path: Path) -> None:
    report = "import importlib.metadata as m; print(*sorted({d.name.lower() for d in m.distributions()}))"
    installed = set(run([device_python, "-c", report], cwd=tmp_path).split())
    assert installed - {"pip", "setuptools"} == {"fcnedge", "numpy"}  # Python < 3.12 puts setuptools into a new venv


def test_runtime_lives_beside_a_robots_own_modules(device_python: Path, tmp_path: Path) -> None:
    """A robot's folder has its own calibration.py and runtime.py: ours must neither load them nor hide them."""
    for name in ("calibration", "runtime"):
        (tmp_path / f"{name}.py").write_text("WHOSE = 'robot'\n", encoding="utf-8")
    program = (
        "import sys, fcnedge.runtime\n"
        "assert not {'calibration', 'runtime'} & set(sys.modules), 'fcnedge loaded the robot modules'\n"
        "import calibration, runtime\n"
        "print(calibration.WHOSE, runtime.WHOSE, fcnedge.runtime.__file__)\n"
    )
    calibration, runtime, ours = run([device_python, "-c", program], cwd=tmp_path).split(maxsplit=2)
    assert (calibration, runtime) == ("robot", "robot")
    assert "site-packages" in Path(ours).parts
