"""How many cases there are, and what is asked of each."""

from __future__ import annotations

import os
from collections.abc import Callable

from hypothesis import HealthCheck, Phase, settings

from trainers.errors import UserError

CASES = "MIXREC_FUZZ_CASES"
FEW = 30
MANY = int(os.environ.get(CASES, "0"))
"""Of each reader; 0: few, and the same ones each time, so that `make test` does not depend on luck"""


def fuzzed(*, few: int = FEW) -> settings:
    """Decorates a test with `given`: `few` cases in `make test`, as many as `MIXREC_FUZZ_CASES` says in `make fuzz`."""
    return settings(
        max_examples=MANY or few,
        derandomize=not MANY,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


def refusal(read: Callable[[], object], kind: type[Exception] = UserError) -> str | None:
    """What `read` was refused with, or None where it went through. Any other error than `kind` fails the test."""
    try:
        read()
    except kind as error:
        message = str(error)
        assert message, "a refusal says why"
        assert message.isprintable(), f"not one line that every terminal can show: {message!r}"
        return message
    return None
