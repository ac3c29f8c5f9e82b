"""What Ray says of an error, in one line."""

from __future__ import annotations

from trainers.errors import UserError


def last_line(error: Exception) -> str:
    """Ray passes the tracebacks of its processes on, whose end says most."""
    lines = [line.strip() for line in str(error).splitlines() if len(line.strip()) > 1]
    return lines[-1] if lines and "Traceback" in str(error) else " ".join(lines)


def token_missing(cluster: str) -> UserError:
    """What to do where `cluster` asks for its token."""
    return UserError(
        f"the Ray cluster at {cluster} asks for its token: put it into RAY_AUTH_TOKEN, and RAY_AUTH_MODE=token "
        "(in a container of deploy/, `with-secrets` before the command does so)"
    )
