"""Settings of a model that writes sentences. Imports nothing heavy."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from playbill.errors import ConfigError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HERE = {"127.0.0.1", "::1", "localhost"}


@dataclass(slots=True, kw_only=True)
class EndpointSettings:
    """Where a model answers that speaks OpenAI's chat completions. Nobody is asked without an `url`."""

    url: str | None = None
    """Address up to the version, such as https://models.example/v1 or http://127.0.0.1:11434/v1; null: nobody."""
    model: str = ""
    """Name of the model, as the endpoint knows it."""
    key_from: str | None = None
    """Environment variable that holds the endpoint's API key; null: it asks for none."""
    timeout_s: float = 20.0
    """Seconds for one answer; nobody who asks Playbill waits for it."""

    def __post_init__(self) -> None:
        if self.url is None:
            if self.model or self.key_from:
                raise ConfigError("url: expected the address of the endpoint that model and key_from are of, got none")
            return
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError("url: expected an http(s) address, such as http://127.0.0.1:11434/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ConfigError("url: expected an address alone; the key belongs into the variable that key_from names")
        if not self.model:
            raise ConfigError("model: expected the name of a model that the endpoint has, got none")
        if not 0 < self.timeout_s <= 600:
            raise ConfigError(f"timeout_s: expected above 0 and up to 600 seconds, got {self.timeout_s:g}")
        # a value that is no name may be the key itself, so no message repeats it
        if self.key_from is not None and _NAME.fullmatch(self.key_from) is None:
            raise ConfigError("key_from: expected the name of an environment variable, not the key itself")
        if self.key_from is not None and parts.scheme == "http" and parts.hostname not in _HERE:
            raise ConfigError(f"url: the key would travel to {parts.hostname} for all to read; use https")

    def key(self) -> str:
        """Return the API key; empty where there is none.

        Raises:
            ConfigError: the variable is not set.
        """
        if self.key_from is None:
            return ""
        found = os.environ.get(self.key_from, "")
        if not found:
            raise ConfigError(
                "key_from: the environment has no such variable, or it is empty; export it, or leave it out"
            )
        return found
