"""The search: which design to try next."""

import logging

# Ax announces on standard error, while it is imported, that its own SQL storage is ready; nothing here uses that.
logging.getLogger("ax.storage.sqa_store.with_db_settings_base").addFilter(lambda record: record.levelno > logging.INFO)
