"""Every public command has help and an example, and every command that a document or a help text names can be given."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest
import typer.main
from typer.testing import CliRunner

from mixrec_automl.cli.app import app
from tests.contracts.repository import DOCUMENTS, ROOT

PROGRAM = "mixrec-automl"
NAMED = re.compile(rf"(?<![\w-]){PROGRAM} ((?:(?!  )[^\n`;()#|])+)")
"""A command with its arguments, up to where text, a comment or another command goes on."""

ROOT_COMMAND = typer.main.get_command(app)


def commands(command: object = ROOT_COMMAND, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every command that does something, with its words."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
        return
    for name, found in inner.items():
        if not found.hidden:
            yield from commands(found, (*path, name))


LEAVES = list(commands())


@pytest.mark.parametrize(("path", "command"), LEAVES, ids=[" ".join(path) for path, _ in LEAVES])
def test_every_command_has_help_and_an_example(path: tuple[str, ...], command: object) -> None:
    shown = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert shown.exit_code == 0
    assert re.search("Examples?:", shown.output), "an example in the epilog"
    assert f"{PROGRAM} {' '.join(path)}" in shown.output
    assert command.help, "a text of what it does"  # type: ignore[attr-defined]
    for parameter in command.params:  # type: ignore[attr-defined]
        assert getattr(parameter, "help", None), f"a help text for {parameter.name}"


def given(line: str) -> str | None:
    """What is wrong with the command `line` (without the program's name), or None: parsed in full, not run."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        return str(error)
    command, context = ROOT_COMMAND, None
    while True:
        inner = getattr(command, "commands", None)
        try:
            if inner is None:
                command.make_context(command.name, words, parent=context)
                return None
            if words and words[0].startswith("-"):
                words = words[1:]  # options of the root act before any command and take no value
            if not words:
                return None
            if words[0] not in inner:
                return f"no command {words[0]!r}"
            command, words = inner[words[0]], words[1:]
        except typer.Exit:  # --help and --version
            return None
        except Exception as error:
            return f"{type(error).__name__}: {getattr(error, 'message', error)}"


def named(text: str) -> list[str]:
    return [found.strip() for found in NAMED.findall(re.sub(r"\\\n\s*", "", text))]


def in_documents() -> list[tuple[str, str]]:
    """Commands in the code of the documents: fenced and indented blocks, spans. The page of the commands is made of
    the help, and has patterns."""
    found = set()
    for path in DOCUMENTS:
        if path.name == "commands.md":
            continue
        text = path.read_text("utf-8")
        blocks = re.findall(r"^(?:```.*?^```|(?:    .*\n)+)", text, re.S | re.M)
        spans = re.findall(r"`([^`\n]+)`", text)
        found |= {(path.name, line) for code in [*blocks, *spans] for line in named(code)}
    return sorted(found)


def in_help() -> list[tuple[str, str]]:
    return [(" ".join(path), line) for path, command in LEAVES for line in named(getattr(command, "epilog", "") or "")]


def test_the_documents_and_the_help_name_commands() -> None:
    assert len([name for name, _ in in_documents() if name == "README.md"]) >= 8
    assert len(in_help()) >= len(LEAVES)


@pytest.mark.parametrize(("where", "line"), [*in_documents(), *in_help()])
def test_every_named_command_can_be_given(where: str, line: str) -> None:
    is_bare_name = line in {" ".join(path) for path, _ in LEAVES}  # as in "`mixrec-automl search` does this"
    assert is_bare_name or given(line) is None, f"{where}: {PROGRAM} {line}"


@pytest.mark.parametrize(
    "line", ["serach configs/ml-100k.yaml", "search", "search a.yaml --trials 4", "promote", "data show", "show a b"]
)
def test_a_command_that_cannot_be_given_is_seen(line: str) -> None:
    assert given(line) is not None


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    named_targets = {
        target
        for path in [*DOCUMENTS, ROOT / ".ci/run"]
        for target in re.findall(r"(?:`|^|\$ |\s{4})make ([a-z-]+)", path.read_text("utf-8"), re.M)
    }
    assert {"search", "test", "install"} <= named_targets
    assert named_targets <= targets
