"""Chat completions of an OpenAI-compatible endpoint, with retries and exponential backoff.

In: OpenAI-style messages. Out: a `Completion`, or the events of a stream. Used by `evaluation.judge`, by `curation` and
by `cli.chat`.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from paddle_internvl.evaluation import picture_marks
from paddle_internvl.evaluation.completion import ChatRequestError, Completion, EndpointUnavailableError

try:
    import httpx
except ImportError:
    raise ImportError("an endpoint needs httpx: pip install httpx") from None

_PATH = "/chat/completions"
_LIMIT, _NEW_LIMIT = "max_tokens", "max_completion_tokens"  # OpenAI's reasoning models refuse the older name
_RETRIED = {408, 409, 425, 429, 500, 502, 503, 504, 529}
_UNAVAILABLE = {401, 402, 403, 404, 405, 429, 502, 503, 529}  # the next request would get the same answer
_LONGEST_WAIT = 60.0  # seconds
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_SHOWN = 300  # characters of an error's body


class ChatEndpoint:
    """Client of an OpenAI-compatible endpoint. Thread-safe.

    Args:
        url: base URL with or without /v1, or the full URL of the chat completions, as VLMEvalKit's OPENAI_API_BASE;
            None: $OPENAI_API_BASE or $OPENAI_BASE_URL.
        model: name of the model; None: $LOCAL_LLM (VLMEvalKit's), else the first that the endpoint lists.
        key: API key; None: $OPENAI_API_KEY, or no key.
        timeout: seconds of one request.
        retries: further requests after a failed one.
        transport: of httpx; None: the network.
        sleep: waits for a number of seconds.
    Raises:
        ValueError: there is no URL, or it is malformed.
    """

    def __init__(
        self,
        url: str | None = None,
        model: str | None = None,
        key: str | None = None,
        timeout: float = 300,
        retries: int = 5,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ):
        url = url or os.environ.get("OPENAI_API_BASE") or os.environ.get("OPENAI_BASE_URL")
        if not url:
            raise ValueError("no endpoint: name its URL, or set OPENAI_API_BASE")
        self.url = _completions_url(url)
        key = key or os.environ.get("OPENAI_API_KEY")
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=timeout, transport=transport,
            limits=httpx.Limits(max_connections=None), trust_env=httpx.URL(self.url).host not in _LOOPBACK,
        )  # fmt: skip
        self._retries, self._sleep = retries, sleep
        self._model = model or os.environ.get("LOCAL_LLM")
        self._lock, self._limit, self._reads_marks = threading.Lock(), _LIMIT, None

    @property
    def model(self) -> str:
        """Name of the model."""
        with self._lock:
            if self._model is None:
                self._model = self._listed_model()["id"]
            return self._model

    @property
    def reads_marks(self) -> bool:
        """Whether the server reads LMDeploy's marks of pictures; no, where it lists no models."""
        with self._lock:
            if self._reads_marks is None:
                try:
                    self._reads_marks = self._listed_model().get("owned_by") in picture_marks.OWNERS
                except (ChatRequestError, EndpointUnavailableError):
                    self._reads_marks = False
            return self._reads_marks

    def complete(self, messages: Sequence[Mapping], **fields) -> Completion:
        """Complete a conversation.

        Args:
            messages: OpenAI-style; pictures as `image_url`, placed by LMDeploy's marks or before their text.
            fields: further fields of the request: `temperature`, `max_tokens`, `seed` …; None: not sent.
        Raises:
            ChatRequestError: this request got no answer.
            EndpointUnavailableError: no request gets an answer.
        """
        if picture_marks.has_marks(messages) and not self.reads_marks:
            messages = picture_marks.without_marks(messages)
        body = {"model": self.model, "messages": messages}
        body |= {name: value for name, value in fields.items() if value is not None}
        try:
            return self._complete(body)
        except ChatRequestError as error:
            if _LIMIT not in body or _NEW_LIMIT not in str(error):
                raise
        self._limit = _NEW_LIMIT
        return self._complete(body)

    def stream(self, messages: Sequence[Mapping], **fields) -> Iterator[dict]:
        """Events of a streamed completion, parsed; without retries.

        Args:
            messages: see `complete`.
            fields: see `complete`.
        Raises:
            As `complete`.
        """
        body = {"model": self.model, "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
        try:
            with self._http.stream("POST", self.url, json=body | fields) as response:
                if response.status_code != 200:
                    response.read()
                    raise ChatRequestError(f"{self.url} answers {response.status_code}: {response.text[:_SHOWN]}")
                for line in response.iter_lines():
                    if line.startswith("data:") and line[5:].strip() != "[DONE]":
                        event = json.loads(line[5:])
                        if "error" in event:
                            raise ChatRequestError(f"{self.url}: {json.dumps(event['error'])[:_SHOWN]}")
                        yield event
        except httpx.ConnectError as fault:
            raise EndpointUnavailableError(f"no server answers at {self.url}: {fault}") from None
        except (httpx.TransportError, json.JSONDecodeError) as fault:
            raise ChatRequestError(f"{self.url}: {fault or type(fault).__name__}") from None

    def count_tokens(self, messages: Sequence[Mapping]) -> dict:
        """Token count of a conversation, by `/v1/count_tokens` of our server: 'total', 'visual', 'pictures'.

        Raises:
            As `complete`; other servers have no such route.
        """
        url = f"{self.url.removesuffix(_PATH)}/count_tokens"
        return self._send("POST", url, json.dumps({"model": self.model, "messages": messages}).encode()).json()

    def _complete(self, body: dict) -> Completion:
        if _LIMIT in body:
            body = {self._limit if name == _LIMIT else name: value for name, value in body.items()}
        # ASCII JSON: half of a surrogate pair, which a training text may have, is no UTF-8.
        return _completion(self._send("POST", self.url, json.dumps(body).encode()))

    @property
    def host(self) -> str:
        """Name or address, and port, of the server."""
        return httpx.URL(self.url).netloc.decode()

    def describe(self) -> dict:
        """What the server lists of the model in /v1/models: 'id', and fields that differ from server to server.

        Raises:
            As `complete`; or the server lists no model of this name.
        """
        if self._model is None:
            return self._listed_model()
        url = f"{self.url.removesuffix(_PATH)}/models"
        for model in self._send("GET", url).json().get("data", ()):
            if model.get("id") == self._model:
                return model
        raise EndpointUnavailableError(f"{self.url} lists no model {self._model!r}")

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _listed_model(self) -> dict:
        """The first model that the server lists."""
        response = self._send("GET", f"{self.url.removesuffix(_PATH)}/models")
        try:
            model = response.json()["data"][0]
            model["id"].strip()
            return model
        except (ValueError, LookupError, TypeError, AttributeError):
            raise EndpointUnavailableError(f"{self.url} lists no model; name one") from None

    def _send(self, method: str, url: str, body: bytes | None = None) -> httpx.Response:
        """The response of status 200."""
        for attempt in range(self._retries + 1):
            wait = min(2.0**attempt, _LONGEST_WAIT)
            try:
                response = self._http.request(method, url, content=body, headers={"Content-Type": "application/json"})
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as fault:
                error = EndpointUnavailableError(f"no server answers at {url}: {fault or type(fault).__name__}")
            except httpx.TransportError as fault:
                error = ChatRequestError(f"{url}: {fault or type(fault).__name__}")
            else:
                if response.status_code == 200:
                    return response
                kind = EndpointUnavailableError if response.status_code in _UNAVAILABLE else ChatRequestError
                error = kind(f"{url} answers {response.status_code}: {response.text[:_SHOWN]}")
                if response.status_code not in _RETRIED:
                    break
                wait = _retry_after(response, wait)
            if attempt < self._retries:
                self._sleep(wait)
        raise error


def _completions_url(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url} is not a URL: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{url} is not a URL of the form http://HOST/v1")
    base = url.rstrip("/").removesuffix(_PATH)
    return f"{base}{_PATH}" if httpx.URL(base).path.strip("/") else f"{base}/v1{_PATH}"


def _retry_after(response: httpx.Response, wait: float) -> float:
    """Seconds until the next request: the endpoint's `Retry-After` (a number) if it is longer."""
    try:
        return min(max(wait, float(response.headers["retry-after"])), _LONGEST_WAIT)
    except (KeyError, ValueError):
        return wait


def _completion(response: httpx.Response) -> Completion:
    try:
        body = response.json()
        choice, usage = body["choices"][0], body.get("usage") or {}
        text = choice["message"]["content"]
        counts = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ChatRequestError(f"no chat completion: {response.text[:_SHOWN]}") from None
    if not isinstance(text, str):
        raise ChatRequestError(f"a completion without text: {response.text[:_SHOWN]}")
    return Completion(text, choice.get("finish_reason"), *counts)
