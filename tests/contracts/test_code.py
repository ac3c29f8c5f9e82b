"""No code of ours runs what it reads: no eval, no shell, no YAML of objects, no archive unpacked by its own paths."""

from __future__ import annotations

import ast

import pytest

from tests.contracts.repository import PACKAGES, ROOT, sources

EVERYWHERE = (*PACKAGES, "tools", "benchmarks")
RUNS_CODE = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}
UNPACKS = {"extractall", "extract", "unpack_archive"}
SAFE_LOADERS = ("yaml.SafeLoader", "_Loader")
OWN_LOADER = "mixrec_automl/config.py"
"""Its loader is a `yaml.SafeLoader` that is stricter"""
EXCEPTIONS = {"tools/recbole_parity/recbole_side.py": ["torch.load without weights_only"]}
"""RecBole's side reads the checkpoint that it has just written itself, in RecBole's environment."""


def risks(source: str) -> list[str]:
    """Each call of `source` that could run what a file or a user says."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name, given = ast.unparse(node.func), {one.arg: ast.unparse(one.value) for one in node.keywords}
        of_archives = isinstance(node.func, ast.Attribute) and node.func.attr in UNPACKS
        of_yaml = name.startswith("yaml.") and name.endswith("load") and name != "yaml.safe_load"
        if name == "torch.load" and given.get("weights_only") != "True":
            found.append("torch.load without weights_only")
        elif name in RUNS_CODE or of_archives or (of_yaml and given.get("Loader") not in SAFE_LOADERS):
            found.append(name)
        if given.get("shell", "False") != "False":
            found.append(f"{name} with a shell")
        if given.get("trust_remote_code", "False") != "False":
            found.append(f"{name} with code of the checkpoint's")
    return found


def test_nothing_that_is_read_is_run() -> None:
    files = sources(*EVERYWHERE)
    assert len(files) > 100, "the check sees the files"
    found = {str(path.relative_to(ROOT)): names for path in files if (names := risks(path.read_text("utf-8")))}
    assert found == EXCEPTIONS
    assert "class _Loader(yaml.SafeLoader):" in (ROOT / OWN_LOADER).read_text("utf-8")


@pytest.mark.parametrize(
    "source",
    [
        "eval(text)",
        "exec(compile)",
        "os.system(command)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "yaml.full_load(text)",
        "subprocess.run(command, shell=True)",
        "subprocess.run(command, shell=wanted)",
        "archive.extractall(folder)",
        "shutil.unpack_archive(path)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_every_risk_is_seen(source: str) -> None:
    assert len(risks(source)) == 1


@pytest.mark.parametrize(
    "source",
    ["model.eval()", "yaml.safe_load(text)", "yaml.load(text, Loader=_Loader)", "extract(WHEEL)"],
)
def test_what_is_harmless_passes(source: str) -> None:
    assert risks(source) == []
