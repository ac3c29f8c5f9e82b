"""A trained MixRec as one file for torch alone: the program of its scores (`torch.export`), its weights, its catalogue.

The file has no code and no object of ours. Whoever reads it needs torch and nothing else:
`torch.export.load(file).module()(items)` gives the scores [I] after `items`, int64 [n], oldest first.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from trainers.dense import DenseMixRec
from trainers.errors import UserError
from trainers.package import Package
from trainers.recommend import Recommender

CATALOGUE = "catalogue.json"
"""Extra file of the program: `ids` and `titles` [I] in index order, and `history`, the most items that may be asked."""
SUFFIX = ".pt2"
TOLERANCE = 1e-3
"""Of a score, between the file and the package: products are added up in another order"""


def export_program(package: Recommender, file: Path) -> float:
    """Write the scoring of histories of unknown users, for a CPU and in float32, in place of what `file` was.

    What is written is read again and asked with a few random histories; where it answers otherwise than the package
    does, `file` stays as it was. The package is left on the CPU and in float32.

    Returns:
        The largest difference between scores of both.

    Raises:
        UserError: no MixRec, another ending than .pt2, or other answers.
    """
    if not isinstance(package, Package):
        raise UserError("only MixRec can be exported, and this is a model of another kind: name one of MixRec's")
    if file.suffix != SUFFIX:
        raise UserError(f"{file} does not end in {SUFFIX}, as torch wants it of a program: name it {file.stem}{SUFFIX}")
    package = _on_cpu(package)
    catalogue, history = package.catalogue, package.config.data.history
    program = trace(DenseMixRec(package.model, package.layout, history))
    told = {"ids": catalogue.ids, "titles": catalogue.titles, "history": history}
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{file.stem}-") as scratch:
        made = Path(scratch, file.name)
        torch.export.save(program, made, extra_files={CATALOGUE: json.dumps(told)})
        difference = largest_difference(package, made)
        if not difference <= TOLERANCE:  # not a number, too
            raise UserError(
                f"the exported program's scores differ from the model's by up to {difference:.2g}, more than "
                f"{TOLERANCE:g}: {file} is not written; please report it"
            )
        made.replace(file)
    return difference


def trace(module: DenseMixRec) -> ExportedProgram:
    """`module` as a program for 1 to `module.history` items; its weights are shared, but ask for no gradient."""
    example = torch.zeros(min(module.history, 2), dtype=torch.int64)
    shapes = {"items": {0: Dim("items", min=1, max=module.history)}} if module.history > 1 else None
    with torch.no_grad():
        program = torch.export.export(module.eval(), (example,), dynamic_shapes=shapes)
    for name, weight in program.state_dict.items():
        if isinstance(weight, nn.Parameter):
            program.state_dict[name] = nn.Parameter(weight.detach(), requires_grad=False)
    return program


def largest_difference(package: Package, file: Path) -> float:
    """Between the scores of `file` and of the package after random histories: of one item, of the most, and between."""
    program, most, draw = torch.export.load(file).module(), package.config.data.history, np.random.default_rng(0)
    lengths = sorted({1, (most + 1) // 2, most})
    histories = [draw.integers(len(package.catalogue), size=length).astype(np.int32) for length in lengths]
    expected = package.score(histories)
    found = torch.stack([program(torch.from_numpy(items.astype(np.int64))) for items in histories])
    return float((found - expected).abs().max())


def _on_cpu(package: Package) -> Package:
    """`package` itself without its cache, where the file's arithmetic is."""
    model, cpu = package.model, torch.device("cpu")
    model.objective = replace(model.objective, precision="float32")
    model.backbone.to(cpu)
    model.to(cpu).eval()  # anew, since what is folded is no part of the module
    return replace(package, cache=None)
