"""Where a model that writes sentences answers: what is refused, and that no message repeats a key."""

from __future__ import annotations

from typing import Any

import pytest

from playbill.errors import ConfigError
from playbill.words.settings import EndpointSettings


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": "m"}, "url: expected the address"),
        ({"url": "ftp://x/v1", "model": "m"}, "url: expected an http"),
        ({"url": "http://me:secret@127.0.0.1/v1", "model": "m"}, "url: expected an address alone"),
        ({"url": "http://127.0.0.1/v1"}, "model: expected the name"),
        ({"url": "http://127.0.0.1/v1", "model": "m", "timeout_s": 0}, "timeout_s: expected above 0"),
        ({"url": "http://127.0.0.1/v1", "model": "m", "key_from": "sk-secret"}, "key_from: expected the name"),
        ({"url": "http://models.example/v1", "model": "m", "key_from": "KEY"}, "use https"),
    ],
)
def test_what_cannot_work_is_refused_by_its_field(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as found:
        EndpointSettings(**given)
    assert "secret" not in str(found.value)


def test_a_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = EndpointSettings(url="https://models.example/v1", model="m", key_from="A_KEY")
    with pytest.raises(ConfigError, match="no such variable"):
        settings.key()
    monkeypatch.setenv("A_KEY", "secret")
    assert settings.key() == "secret" and EndpointSettings().key() == ""
