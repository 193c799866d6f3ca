"""A model behind HTTP that speaks OpenAI's chat completions.

Source: https://platform.openai.com/docs/api-reference/chat; the part of it that every server has which offers it:
`model` and `messages` go out, `choices[0].message.content` comes back.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from typing import Any

import msgspec

from playbill.errors import EndpointError
from playbill.words.settings import EndpointSettings

_MOST_BYTES = 256 * 1024


class _Message(msgspec.Struct):
    content: str | None


class _Choice(msgspec.Struct):
    message: _Message


class _Completion(msgspec.Struct):
    choices: list[_Choice]


class _Straight(urllib.request.HTTPRedirectHandler):
    """Follows nothing: urllib would send the key on to wherever it is told."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Endpoint:
    """Asks one model, a question a connection."""

    def __init__(self, settings: EndpointSettings) -> None:
        """Make it ready to ask; nothing is sent yet.

        Raises:
            ConfigError: there is no key where the settings name one.
        """
        self._settings, self._url = settings, f"{str(settings.url).rstrip('/')}/chat/completions"
        key = settings.key()
        self._headers = {"content-type": "application/json", "accept": "application/json", "user-agent": "playbill"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"
        self._opener = urllib.request.build_opener(_Straight)

    def answer(self, rules: str, wanted: str) -> str:
        """Return what the model says.

        Args:
            rules: as the system; `wanted` as the user.
        Raises:
            EndpointError: it does not answer in time, or not so. No message repeats what it said, or the key.
        """
        messages = [{"role": "system", "content": rules}, {"role": "user", "content": wanted}]
        body = msgspec.json.encode({"model": self._settings.model, "messages": messages})
        until = time.monotonic() + self._settings.timeout_s
        try:
            asked = urllib.request.Request(self._url, body, self._headers, method="POST")
            with self._opener.open(asked, timeout=self._settings.timeout_s) as response:
                said = _read(response, until)
            found = msgspec.json.decode(said, type=_Completion)
        except urllib.error.HTTPError as error:
            error.close()
            raise EndpointError(f"{self._url} answered {error.code}; is the model {self._settings.model!r} there, and "
                                "the key right?") from None  # fmt: skip
        except (OSError, http.client.HTTPException) as error:
            raise EndpointError(f"{self._url} gives no answer: {type(error).__name__}; is it up?") from None
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise EndpointError(f"{self._url} answered something else than a chat completion; is it the right address?"
                                ) from None  # fmt: skip
        if not found.choices or not found.choices[0].message.content:
            raise EndpointError(f"{self._url} answered without a word")
        return found.choices[0].message.content


def _read(response: http.client.HTTPResponse, until: float) -> bytes:
    """Return the body of an answer that may come byte by byte, and never end."""
    said = b""
    while part := response.read1(65_536):
        said += part
        if len(said) > _MOST_BYTES or time.monotonic() > until:
            raise TimeoutError
    return said
