"""The AutoML search service. `import mixrec_automl as mx` and `mx.search(...)` is its Python side (docs/python.md);
`mixrec-automl` is its command."""

from importlib import import_module

from mixrec_automl.api import searching as _searching
from mixrec_automl.api.model import Model, load_model
from mixrec_automl.api.result import SearchResult
from mixrec_automl.api.searching import load_search
from mixrec_automl.api.updating import update
from trainers.errors import UserError

__all__ = ["Model", "SearchResult", "UserError", "__version__", "load_model", "load_search", "search", "update"]
__version__ = "0.1.0"

# A package has the name of the function. The import system binds it when it is first imported, and never again: from
# here on the name is the function's, and `from mixrec_automl.search.effects import Effect` finds the package as ever.
import_module("mixrec_automl.search")
search = _searching.search
