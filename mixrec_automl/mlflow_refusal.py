"""What to do where an MLflow server does not let us in. Its client tells of a status and of a DNS attack."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trainers.errors import UserError

_BAD_HOST = "Invalid Host header"
"""How a server with `--allowed-hosts` refuses"""


class MlflowRefusedError(UserError):
    """MLflow's server answers, yet not to us; `found` says why, `remedy` what to do."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(f"{found}: {remedy}")
        self.found, self.remedy = found, remedy


@contextmanager
def refusal_told() -> Iterator[None]:
    """Whatever MLflow raises within because of user, password, rights or host name becomes MlflowRefusedError."""
    try:
        yield
    except Exception as error:
        if refused := refusal(error):
            raise refused from error
        raise


def refusal(error: Exception) -> MlflowRefusedError | None:
    """What to raise instead of `error`; None where it is no refusal."""
    code = getattr(error, "error_code", None)  # of an MlflowException, whose import takes seconds
    if code == "UNAUTHENTICATED":
        return MlflowRefusedError(
            "MLflow's server does not take this user and password",
            "export MLFLOW_TRACKING_USERNAME=... and MLFLOW_TRACKING_PASSWORD",
        )
    if code == "PERMISSION_DENIED" and _BAD_HOST in str(error):
        return MlflowRefusedError(
            "MLflow's server does not answer to the host name in MLFLOW_TRACKING_URI",
            "start it with --allowed-hosts=HOST:PORT, or export MLFLOW_TRACKING_URI=... with one that it allows",
        )
    if code == "PERMISSION_DENIED":
        return MlflowRefusedError(
            "MLflow's server does not allow this user to do that",
            "export MLFLOW_TRACKING_USERNAME=... and MLFLOW_TRACKING_PASSWORD of one with the permission EDIT",
        )
    return None
