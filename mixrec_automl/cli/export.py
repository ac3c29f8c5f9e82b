"""`mixrec-automl export`: a model as one file for torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixrec_automl.cli.recommend import MODEL_HELP

EXAMPLE = "Example: mixrec-automl export mixrec-ml-100k --out mixrec-ml-100k.pt2"


def export(
    model: Annotated[str, typer.Argument(help=f"{MODEL_HELP} MixRec only.")],
    out: Annotated[Path, typer.Option("--out", help="File to write, ending in .pt2; one that is there is replaced.")],
) -> None:
    """Write a model as one file that needs torch and nothing else: weights, program (torch.export) and catalogue. Its
    answers are compared with the model's before it is put in place."""
    from mixrec_automl.cli.tables import make_console
    from mixrec_automl.serving.loading import load_now
    from trainers.errors import UserError
    from trainers.export import export_program

    loaded = load_now(model)
    console = make_console()
    with console.status("exporting"):
        try:
            difference = export_program(loaded.package, out)
        except OSError as error:
            raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    for line in (
        f"{out}: {out.stat().st_size / 1e6:,.1f} MB; its scores differ from the model's by at most {difference:.1g}",
        "",
        "import torch",
        f"program = torch.export.load({str(out)!r}).module()",
        "scores = program(torch.tensor([0]))  # of all items, after the indices of a history, oldest first",
    ):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
