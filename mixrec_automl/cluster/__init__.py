"""All that knows Ray: the session, the executors and what runs in their workers."""

from __future__ import annotations

import os

# Read when ray is first imported: else a late call from a thread that still waits for a trial, after the session has
# ended, would start a cluster of its own.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
