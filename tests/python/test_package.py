"""The package is as its documentation says: the Python of each page runs, the stubs are the module's, the example works."""

import importlib.metadata
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

import datafusion_wae


PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benches/README.md")),
    *(ROOT / name for name in ("udfs/python/README.md", "udfs/ballista/README.md")),
    *sorted((ROOT / "udfs/src/guide").glob("*.md")),
]


def python_blocks(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


WITH_PYTHON = {str(page.relative_to(ROOT)): page for page in PAGES if python_blocks(page)}


def run(script, folder):
    """Runs a script in a folder with nothing but the fixtures in it."""
    (folder / "fixtures").symlink_to(ROOT / "fixtures")
    environment = {**os.environ, "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pages_with_python_are_found():
    assert {"README.md", "udfs/python/README.md", "udfs/src/guide/python.md"} <= WITH_PYTHON.keys()


@pytest.mark.parametrize("name", WITH_PYTHON)
def test_the_python_of_a_page_runs(tmp_path, name):
    out = run("\n".join(python_blocks(WITH_PYTHON[name])), tmp_path)
    assert (tmp_path / "models/clothes.safetensors").exists()
    if name == "udfs/python/README.md":
        assert "shape: (1_500, 3)" in out and "array[f32, 8]" in out


def test_the_example_runs(tmp_path):
    out = run((ROOT / "examples/python/quickstart.py").read_text(), tmp_path)
    assert "AUROC" in out
    for picture in ("strangest", "samples"):
        assert (tmp_path / f"target/python/{picture}.png").stat().st_size > 10_000


def test_the_wheel_has_what_it_needs():
    package = importlib.metadata.distribution("datafusion-wae")
    assert package.version == datafusion_wae.__version__
    files = [str(file) for file in package.files]
    for wanted in ("datafusion_wae/py.typed", "datafusion_wae/_internal.pyi"):
        assert wanted in files
    assert any(file.endswith("licenses/LICENSE") for file in files)
    assert package.metadata["License-Expression"] == "Apache-2.0"
    assert "datafusion_wae.SessionContext" in package.metadata.get_payload()
    # Arrow comes from the user's own library; none is needed.
    assert all("extra ==" in requirement for requirement in package.requires)


def test_everything_public_has_a_docstring():
    for name in datafusion_wae.__all__:
        member = getattr(datafusion_wae, name)
        if name == "__version__":
            continue
        assert member.__doc__, name
        for method in vars(member) if isinstance(member, type) else ():
            if not method.startswith("_"):
                assert getattr(member, method).__doc__, f"{name}.{method}"


@pytest.mark.parametrize("arguments", [["mypy", "--strict", "-p"], ["mypy.stubtest"]])
def test_the_types_are_those_of_the_module(tmp_path, arguments):
    pytest.importorskip("mypy")
    done = subprocess.run(
        [sys.executable, "-m", *arguments, "datafusion_wae"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
