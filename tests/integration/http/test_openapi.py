"""The API holds what its OpenAPI document says, whatever is sent: no 500, no status or body that is not in it."""

import json
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import response_schema_conformance

from albatros.domain.access import Scope
from tests.support.api import Api

EXAMPLES = 8
"""Of each operation: the whole takes well under a minute."""
_STREAMS = ("/api/v1/events", "/api/v1/jobs/{id}/log/live")


JSON = st.recursive(st.none() | st.text(), st.lists)


@pytest.fixture(scope="module")
def examples() -> settings:
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    return settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=checks, phases=[Phase.generate])


def test_no_call_of_any_kind_is_answered_500(api: Api, examples: settings) -> None:
    document = api.reader.get("/api/v1/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    headers = {"Authorization": f"Bearer {api.tokens[Scope.ADMIN]}"}
    called = 0
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        if operation.path in _STREAMS:
            continue
        called += 1

        @examples
        @given(case=operation.as_strategy())
        def call(case: schemathesis.Case[Any]) -> None:
            response = case.call(base_url=api.url, headers=headers, timeout=60, allow_redirects=False)
            case.validate_response(response, checks=[not_a_server_error, response_schema_conformance])

        call()
    assert called > 20


@pytest.mark.parametrize("forge", ["home", "nowhere", "%2e%2e", "x" * 300])
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(body=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_webhook_is_answered_500(api: Api, forge: str, body: bytes) -> None:
    answer = api.reader.post(f"/webhooks/{forge}", content=body, headers={"Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500
