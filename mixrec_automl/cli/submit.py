"""`mixrec-automl submit` and `logs`: a search as a job of a Ray cluster, for whoever does not want to wait for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixrec_automl.cli.outcome import EXIT_FAILED
from mixrec_automl.cli.search import CONFIG, Name, Overrides

if TYPE_CHECKING:
    from mixrec_automl.cluster.jobs import Job, Jobs

SUBMIT_EXAMPLE = (
    "Examples: mixrec-automl submit configs/ml-100k.yaml --name first --address http://head:8265 ; "
    "mixrec-automl submit --resume first"
)
LOGS_EXAMPLE = "Example: mixrec-automl logs first --follow --address http://head:8265"
SENT = "search.yaml"
"""The configuration, overrides and all, beside the job"""

Address = Annotated[
    str,
    typer.Option(
        envvar="RAY_API_SERVER_ADDRESS", help="The cluster's dashboard, which takes its jobs.", show_envvar=True
    ),
]


def submit(
    config: Annotated[Path | None, CONFIG] = None,
    overrides: Overrides = None,
    name: Name = None,
    resume: Annotated[str | None, typer.Option(metavar="NAME", help="Go on with this search instead.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print what it prints until it is over.")] = False,
    address: Address = "http://127.0.0.1:8265",
) -> None:
    """Run a search as a job of a Ray cluster, which goes on when this command has ended. The nodes have mixrec-automl
    installed, share MIXREC_HOME, and name database and MLflow in their environment; paths in the file are paths there.
    Given twice, a search with a --name is run once.
    """
    import yaml

    from mixrec_automl import paths
    from mixrec_automl.config import load_config
    from mixrec_automl.holder import OWNER, owner
    from mixrec_automl.start import name_of
    from trainers.errors import UserError

    if (config is None) == (resume is None) or (resume and (overrides or name)):
        raise UserError("give either a configuration, with --set and --name, or --resume NAME alone")
    if config is None:
        search = paths.valid_name(resume or "", "search")
        command, files = ["mixrec-automl", "resume", search], {}
    else:
        loaded = load_config(config, overrides or [])
        search = name_of(name, config.stem)
        command = ["mixrec-automl", "search", SENT, "--name", search]
        files = {SENT: yaml.safe_dump(loaded.as_dict(), sort_keys=False)}
    from mixrec_automl.cluster.jobs import Jobs

    jobs = Jobs(address)
    before = jobs.newest(search)
    if before and not before.is_over:
        typer.echo(f"{search} runs already: job {before.identifier}, {before.state.lower()}")
        job = before
    elif before and config is not None:
        raise UserError(
            f"search {search!r} was run before: job {before.identifier} {before.state.lower()}. "
            f"`mixrec-automl submit --resume {search}` goes on with it; or choose another --name"
        )
    else:
        job = jobs.submit(search, command, files, {OWNER: owner()})
        typer.echo(f"{search} is submitted: job {job.identifier}")
    if follow:
        _follow(jobs, job, search)
    else:
        typer.echo(f"what it prints: mixrec-automl logs {search} --follow --address {address}")


def logs(
    name: Annotated[str, typer.Argument(help="A search that was submitted.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it is over.")] = False,
    address: Address = "http://127.0.0.1:8265",
) -> None:
    """Print what the last job of a search has printed."""
    from mixrec_automl.cluster.jobs import Jobs
    from trainers.errors import UserError

    jobs = Jobs(address)
    job = jobs.newest(name)
    if job is None:
        raise UserError(f"the cluster at {address} has no job of a search named {name!r}: see {address}/#/jobs")
    if follow:
        _follow(jobs, job, name)
    else:
        typer.echo(jobs.log(job), nl=False)


def _follow(jobs: Jobs, job: Job, search: str) -> None:
    """Ctrl-C ends the reading, not the job."""
    try:
        ended = jobs.follow(job, lambda text: typer.echo(text, nl=False))
    except KeyboardInterrupt:
        typer.echo(f"job {job.identifier} goes on; `mixrec-automl stop {search}` stops its search", err=True)
        return
    if ended.state != "SUCCEEDED":
        typer.echo(f"job {ended.identifier} {ended.state.lower()}: {ended.message}", err=True)
        raise typer.Exit(EXIT_FAILED)
