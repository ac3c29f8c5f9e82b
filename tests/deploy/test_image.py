"""What the image holds. Docker has not built it; its installer runs here in an environment of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import mixrec_automl
from tests.deploy.manifests import DEPLOY, ROOT

DOCKERFILE = (DEPLOY / "Dockerfile").read_text("utf-8")


def test_what_the_dockerfile_copies_reaches_docker() -> None:
    """.dockerignore leaves out everything but what it names."""
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    let_in = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    assert [name for name in let_in if not (ROOT / name).exists()] == []
    mounted = set(re.findall(r"type=bind,source=(\S+),", DOCKERFILE))
    copied = set(re.findall(r"^COPY (?:--chmod=\d+ )?(\S+) \S+$", DOCKERFILE, re.M)) - {"."}
    assert mounted | copied == {"deploy/install.sh", "deploy/with_secrets.sh", "constraints.txt"}
    assert mounted | copied <= let_in
    built_from = re.search(r"^packages = \[(.+)\]$", (ROOT / "pyproject.toml").read_text("utf-8"), re.M)
    assert built_from
    assert set(re.findall(r'"(\w+)"', built_from[1])) <= let_in
    assert {"pyproject.toml", "README.md", "LICENSE", "NOTICE"} <= let_in


def test_the_image_is_not_roots_and_keeps_no_secret() -> None:
    last = DOCKERFILE.rindex("\nFROM ")
    users = re.findall(r"^USER (\S+)$", DOCKERFILE[last:], re.M)
    assert users == ["1000:1000"]
    assert not re.search(r"^(?:ARG|ENV) .*(?:PASSWORD|TOKEN|SECRET)", DOCKERFILE, re.M)
    assert "TORCH_INDEX" in re.findall(r"^ARG (\w+)", DOCKERFILE, re.M)


@pytest.mark.end_to_end
def test_the_installer_installs_the_wheel_with_all_its_files(tmp_path: Path) -> None:
    """Without dependencies, which `make test` installs in a fresh clone; with the very script that the image runs."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "environment", with_pip=True)
    bin_folder = tmp_path / "environment" / "bin"
    environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "PIP_NO_DEPS": "1", "PIP_QUIET": "1"}
    for name in ("PYTHONPATH", "TORCH_INDEX"):
        environment.pop(name, None)
    subprocess.run([DEPLOY / "install.sh", wheel, ROOT / "constraints.txt"], env=environment, cwd=tmp_path, check=True)
    asked = "import importlib.util as u; print(u.find_spec('mixrec_automl').submodule_search_locations[0])"
    found = subprocess.check_output([bin_folder / "python", "-c", asked], env=environment, cwd=tmp_path, text=True)
    installed = Path(found.strip()).parent
    assert installed.is_relative_to(tmp_path)
    packages = (ROOT / name for name in ("mixrec_automl", "trainers", "search_spaces"))
    files = [path.relative_to(ROOT) for folder in packages for path in folder.rglob("*.*") if path.suffix != ".pyc"]
    assert [name for name in files if not (installed / name).exists()] == []
    assert (installed / "mixrec_automl/registry_model.py").is_file()
    assert list((installed / "mixrec_automl/presets").glob("*.yaml"))
    assert (bin_folder / "mixrec-automl").is_file()
    metadata = (installed / f"mixrec_automl-{mixrec_automl.__version__}.dist-info" / "METADATA").read_text("utf-8")
    assert {"postgres", "server"} <= set(re.findall(r"^Provides-Extra: (\S+)$", metadata, re.M))
