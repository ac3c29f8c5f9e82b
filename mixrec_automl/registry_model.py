"""The model file that MLflow stores and runs ("models from code"): it holds no weights and is never pickled."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from trainers.package import Package, read_package
from trainers.recommend import Query, recommend_each


class RegisteredRecommender(PythonModel):  # type: ignore[misc]
    """Takes a column `history` of item-identifier lists, oldest first; answers one list of items for each row."""

    def load_context(self, context: Any) -> None:
        self._package: Package = read_package(Path(context.artifacts["package"]))

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[list[dict[str, Any]]]:
        del context
        options = params or {}
        k, exclude_seen = int(options.get("k", 10)), bool(options.get("exclude_seen", False))
        queries = [Query(list(history), k=k, exclude_seen=exclude_seen) for history in model_input["history"]]
        return [[asdict(one) for one in found] for found in recommend_each(self._package, queries)]


set_model(RegisteredRecommender())
