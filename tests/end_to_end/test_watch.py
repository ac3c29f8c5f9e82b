"""`watch` as a process that knows the database alone, beside the process that runs the search."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from mixrec_automl.store.records import SearchState
from tests.end_to_end.drive import NAME
from tests.end_to_end.shell import rest_of, wait_for
from tests.end_to_end.stage import ROOT, Stage, check_results, plan
from tests.mixrec_automl.store.writing import writer_of

pytestmark = pytest.mark.end_to_end

EPOCHS = 20


def watch(stage: Stage, home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "mixrec_automl.cli.app", "watch", NAME],
        cwd=ROOT,
        env={**stage.variables, "MIXREC_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_a_search_is_watched_to_its_end_and_takes_no_notice(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "home")
    with stage.controller(plan(trials=4, epochs=EPOCHS, seconds=0.5)) as controller:
        controller.wait_for("trial 0 .*epoch 1/")
        first, second = (watch(stage, tmp_path / name) for name in ("first", "second"))
        try:
            wait_for(first, "epoch")
            first.send_signal(signal.SIGINT)
            told = rest_of(first)
            assert told.endswith(f"search {NAME} goes on; `mixrec-automl stop {NAME}` stops it\n")
            assert first.returncode == 130
            lines = "".join(wait_for(second, "COMPLETED"))
            rest = rest_of(second)
        finally:
            for process in (first, second):
                process.kill()
                process.wait()
        assert controller.finish() == 0, controller.output
    assert second.returncode == 0
    assert f"search {NAME}: COMPLETED, 4 of 4 trials ended" in rest
    epochs = re.findall(r"^(trial \d .*epoch \d+)/", lines + rest, re.M)
    assert len(set(epochs)) == len(epochs), "none twice"
    assert sum(line.startswith("trial 3  ") for line in epochs) == EPOCHS, "none left out"
    check_results(stage.trials(), count=4)


def test_how_a_search_ended_is_the_exit_code_and_an_unknown_one_is_one_line(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "home")
    with closing(stage.repository()) as repository:
        repository.create_search(NAME, {"search": {"trials": 0}}, "fingerprint")
        writer_of(repository, NAME).set_state(SearchState.COMPLETED)
    assert stage.command("watch", NAME).returncode == 0
    unknown = stage.command("watch", "nobody")
    assert unknown.returncode == 2
    assert unknown.stderr.startswith("error: no search is named 'nobody'")
