"""The HTTP service by its own schema: whatever is sent, no answer is an error of ours, and each is as the schema says.

In process, as a replica makes it: a real package behind the real queue, without Ray.
"""

from __future__ import annotations

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from hypothesis import given
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import positive_data_acceptance
from schemathesis.core.failures import FailureGroup

from mixrec_automl.cluster.serving import TOKEN, Replica
from mixrec_automl.serving.counters import joined
from mixrec_automl.serving.messages import Health
from tests.fuzz.cases import fuzzed
from tests.trainers.tiny_package import make_package

SECRET = "a-token-of-the-fuzzer"


class Alone(Replica):
    """Outside Ray Serve, which would tell of the others."""

    async def _metrics_of_all(self) -> str:
        return joined(dict([self.metrics()]))


NOT_CHECKED = [positive_data_acceptance]  # what the model does not know is refused, which no schema can tell


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TOKEN, SECRET)
        package = make_package(tmp_path_factory.mktemp("fuzz") / "made", epochs=1).package
        served: FastAPI = Alone(str(package), 2**20, needs_token=True).__serve_build_asgi_app__()
    return served


@pytest.fixture(scope="module")
def cases(app: FastAPI) -> st.SearchStrategy[Case]:
    """Requests of every route, as the schema wants them and as it does not."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == 4
    return st.one_of([one.as_strategy(generation_mode=mode) for one in operations for mode in GenerationMode])


# Not by its own decorator: its plugin (4.32) does not know pytest 9.
@fuzzed(few=150)
@given(data=st.data())
def test_whatever_is_sent(cases: st.SearchStrategy[Case], data: st.DataObject) -> None:
    case = data.draw(cases)
    headers = {"Authorization": f"Bearer {SECRET}"}
    response = case.call(headers=headers)
    case.validate_response(response, excluded_checks=NOT_CHECKED)
    assert SECRET not in response.text
    assert "Traceback" not in response.text


@pytest.mark.parametrize("answer", [JSONResponse({"detail": "x"}, 500), JSONResponse({"answers": 3})])
def test_a_fault_would_be_seen(answer: JSONResponse) -> None:
    """Both kinds: an error of ours, and an answer that is not as the schema says."""
    broken = FastAPI()

    async def healthz() -> JSONResponse:
        return answer

    broken.get("/healthz", response_model=Health)(healthz)
    schema = schemathesis.openapi.from_asgi("/openapi.json", broken)
    with pytest.raises(FailureGroup):
        schema["/healthz"]["GET"].Case().call_and_validate()
