"""`mixrec-automl serve`: a registered model as an HTTP service."""

from __future__ import annotations

import ipaddress
import os
from contextlib import ExitStack
from typing import Annotated

import typer

from mixrec_automl.cli.outcome import EXIT_INTERRUPTED

EXAMPLE = (
    "Examples: mixrec-automl serve mixrec-ml-100k ; then, elsewhere: "
    "curl -X POST http://127.0.0.1:8000/recommend -H 'Content-Type: application/json' "
    """-d '{"history": ["50", "172"], "k": 5}'"""
)


def serve(
    model: Annotated[
        str,
        typer.Argument(
            help="A registered model (its champion), NAME@ALIAS, NAME/VERSION, the same behind models:/, or the folder "
            "of a package. Where an alias is moved, the service follows within seconds."
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on. Beyond this machine it needs MIXREC_SERVE_TOKEN.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    replicas: Annotated[int, typer.Option(min=1, help="Processes with a copy of the model each.")] = 1,
    cpus: Annotated[int, typer.Option(min=1, help="CPU cores, and threads, of each replica.")] = 1,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs of each replica; a share such as 0.5 is one too.")] = 0,
    cache_mb: Annotated[
        int,
        typer.Option(
            min=0, help="Mebibytes of each replica for what it has read: a history that grew costs its new items alone."
        ),
    ] = 256,
) -> None:
    """Serve a model over HTTP, here or on the Ray cluster that RAY_ADDRESS names, until Ctrl-C."""
    from mixrec_automl import paths
    from mixrec_automl.cli.tables import make_console
    from mixrec_automl.cli.ui import check_free
    from mixrec_automl.serving.loading import ModelSource
    from trainers.errors import UserError

    source = ModelSource(model, paths.tracking_uri())
    version = source.version()  # before Ray starts: a wrong name is told at once
    from mixrec_automl.cluster.ray_session import ray_session
    from mixrec_automl.cluster.serving import TOKEN, ServingOptions, serving, token
    from mixrec_automl.interruption import raise_on_signals, stop_on_signals

    has_token = token() is not None
    if not _is_loopback(host) and not has_token:
        raise UserError(
            f"whoever reaches {host} could ask: set {TOKEN} to a long random text, which requests then carry as "
            f"`Authorization: Bearer ...`, or serve on 127.0.0.1 behind a proxy of your own"
        )
    if not os.environ.get("RAY_ADDRESS"):  # else the head's port, which this machine cannot try
        check_free(host, port)
    reference = str(source.folder.absolute()) if source.folder else model
    # On a cluster it is the environment of its nodes that counts.
    options = ServingOptions(
        model=reference, replicas=replicas, cpus=cpus, gpus=gpus, cache_mb=cache_mb, needs_token=has_token
    )
    called = reference if version is None else str(version)
    console = make_console()
    with ray_session(), ExitStack() as served:
        try:
            with raise_on_signals(), console.status(f"starting {called}"):
                served.enter_context(serving(options, host, port))
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_INTERRUPTED) from None
        with stop_on_signals() as stop:
            url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            typer.echo(f"{called}: {url}/recommend   (pages: {url}/docs; Ctrl-C ends it)")
            stop.wait()
            typer.echo("ending")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
