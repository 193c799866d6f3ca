"""What the OpenAPI document allows and what it does not, drawn by schemathesis and sent to a real server.

No answer is a 5xx, and each has a status, a content type and a body that the document names for its route.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings

schemathesis = pytest.importorskip("schemathesis", reason="the extra dev brings it")

from schemathesis import GenerationMode  # noqa: E402  # after the check that it is there
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from playbill.serving import processes  # noqa: E402
from playbill.serving.openapi import document  # noqa: E402

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]


@pytest.fixture(scope="module")
def document_of_a_server(home: Path, free_ports: Callable[[int], list[int]]) -> Iterator[Any]:
    [port] = free_ports(1)
    log, url = home / "plain.log", f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "playbill.serving.plain", f"home={home}", f"port={port}"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ)

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/v1/health").status_code == 200
        except httpx.HTTPError:
            return False

    try:
        assert processes.wait_until(lambda: answers() or process.poll() is not None, 60), log.read_text()
        yield schemathesis.openapi.from_url(f"{url}/v1/openapi.json")
        assert answers() and " failed (request" not in log.read_text()
    finally:
        process.terminate()
        process.wait(20)


ROUTES = [(path, method) for path, methods in document()["paths"].items() for method in methods]


@pytest.mark.parametrize(("path", "method"), ROUTES)
def test_the_server_answers_as_its_document_says(document_of_a_server: Any, path: str, method: str) -> None:
    operation = document_of_a_server[path][method]

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(
        case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
        | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    )
    def drawn(case: Any) -> None:
        case.validate_response(case.call(), checks=CHECKS)

    drawn()
