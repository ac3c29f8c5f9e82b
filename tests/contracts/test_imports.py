"""Imports go one way, and each large dependency is known to its own corner: the contracts of pyproject.toml."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contracts.repository import PACKAGES, ROOT, sources

LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")
CONTRACTS = 10
PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
PLANTED = {
    "search_spaces": "import torch\n",
    "trainers": "import mixrec_automl.paths\nimport ray\n",
    "mixrec_automl": "import ax, botorch, fastapi, jinja2, mlflow, ray, sqlalchemy\n",
}


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(LINT_IMPORTS), "--no-cache", "--config", str(ROOT / "pyproject.toml")]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_all_contracts_are_kept() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout
    assert f"Contracts: {CONTRACTS} kept, 0 broken." in done.stdout


def test_every_contract_can_break(tmp_path: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
        (tmp_path / package / "planted.py").write_text(PLANTED[package])
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    assert f"Contracts: 0 kept, {CONTRACTS} broken." in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("search_spaces.damoe", ("torch", "numpy", "transformers", "ray")),
        ("mixrec_automl.search.proposer", ("torch", "ax", "botorch")),
        (
            "mixrec_automl",
            ("torch", "ray", "mlflow", "pandas", "numpy", "matplotlib", "sqlalchemy", "pydantic", "rich"),
        ),
        ("mixrec_automl.cli.app", ("torch", "ray", "mlflow", "ax", "transformers")),
    ],
)
def test_importing_loads_nothing_heavy(module: str, unwanted: tuple[str, ...]) -> None:
    program = f"import sys, {module}; print([name for name in {unwanted} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def pickling(source: str) -> list[str]:
    """Each way in which `source` writes or reads a pickle; files of another's making could run code."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in PICKLES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PICKLES:
            found.append(f"{node.module}")
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "torch.save"):
            found.append(ast.unparse(node))
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            found.append("allow_pickle")
    return found


def test_no_file_of_ours_pickles() -> None:
    found = {str(path.relative_to(ROOT)): names for path in sources() if (names := pickling(path.read_text("utf-8")))}
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from cloudpickle import dumps",
        "def f():\n    import joblib.memory",
        "torch.load(path)",
        "save = torch.save",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_every_way_to_pickle_is_seen(source: str) -> None:
    assert len(pickling(source)) == 1
