"""What Ray says of an error, in one line."""

from __future__ import annotations


def last_line(error: Exception) -> str:
    """Ray passes the tracebacks of its processes on, whose end says most."""
    lines = [line.strip() for line in str(error).splitlines() if len(line.strip()) > 1]
    return lines[-1] if lines and "Traceback" in str(error) else " ".join(lines)
