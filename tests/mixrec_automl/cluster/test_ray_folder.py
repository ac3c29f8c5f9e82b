"""The folder of an embedded Ray: gone with its process, or with the next one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mixrec_automl.cluster import ray_folder as subject
from mixrec_automl.cluster.ray_folder import LOCK, PREFIX, ray_folder


@pytest.fixture(autouse=True)
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(subject, "PARENT", tmp_path)
    return tmp_path


def abandoned(parent: Path) -> Path:
    """The folder of a process that was killed."""
    program = (
        "import pathlib, time; from mixrec_automl.cluster import ray_folder as subject; "
        f"subject.PARENT = pathlib.Path({str(parent)!r})\n"
        "with subject.ray_folder() as folder:\n"
        "    (folder / 'session').mkdir(); (folder / 'session' / 'log').write_text('x')\n"
        "    (folder / 'latest').symlink_to('session'); print(folder, flush=True); time.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        process.kill()
    assert folder.exists()
    return folder


def test_it_is_gone_after_the_context_and_left_alone_during_it(parent: Path) -> None:
    with ray_folder() as first:
        (first / "file").write_text("x")
        with ray_folder() as second:
            assert first != second
            assert (first / "file").exists()
    assert list(parent.iterdir()) == []


def test_that_of_a_killed_process_goes_with_the_next_one(parent: Path) -> None:
    folder = abandoned(parent)
    (parent / f"{PREFIX}of-somebody-else").mkdir()
    with ray_folder():
        assert not folder.exists()
    assert [path.name for path in parent.iterdir()] == [f"{PREFIX}of-somebody-else"], "no lock, so none of ours"


def test_what_cannot_be_removed_yet_is_tried_again(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = abandoned(parent)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)
        with ray_folder():
            pass
        left = {path.name for path in folder.iterdir()}
    assert left == {"session", LOCK}
    with ray_folder():
        assert not folder.exists()
