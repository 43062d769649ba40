"""Judge model: asks an endpoint or a checkpoint for verdicts; replies are cached, tokens and failures are counted.

In: OpenAI-style messages. Out: the reply's text; a request without an answer is an error, never a made-up reply.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paddle_internvl.evaluation.completion import Chat, ChatRequestError, EndpointUnavailableError
from paddle_internvl.evaluation.ordered_map import Item, Result, ordered_map
from paddle_internvl.jsonl import append_objects, read_objects

_HOPELESS = 20  # requests without a reply, at the beginning


@dataclass
class JudgeCounts:
    """Counts of a judge.

    Attributes:
        replies: of the model.
        cached: replies from the cache.
        failed: requests without a reply.
        prompt_tokens: of the replies of the model.
        completion_tokens: of the replies of the model.
    """

    replies: int = 0
    cached: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Judge:
    """A judge model. Thread-safe.

    Args:
        chat: a `ChatEndpoint` or a `ChatCheckpoint`.
        cache: JSONL of replies, read and appended to; None: replies are not kept.
        concurrency: limit of requests at a time.
        max_tokens: limit of a reply; None: the model's.
    Attributes:
        counts: replies, failures and tokens so far.
    """

    def __init__(self, chat: Chat, cache: Path | None = None, concurrency: int = 8, max_tokens: int | None = 1024):
        self.counts = JudgeCounts()
        self._chat, self._cache, self._concurrency, self._max_tokens = chat, cache, concurrency, max_tokens
        self._replies = {line["key"]: line["reply"] for line in read_objects(cache)} if cache else {}
        self._slots, self._lock = threading.BoundedSemaphore(concurrency), threading.Lock()

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._chat.model

    def ask(self, messages: Sequence[Mapping], temperature: float = 0.0) -> str:
        """The reply to a conversation; an earlier one to the same messages at the same temperature if it is cached.

        Args:
            messages: OpenAI-style.
            temperature: of the sampling; 0: the likeliest tokens.
        Raises:
            ChatRequestError: no reply; counted in `counts.failed`.
            EndpointUnavailableError: no request would get a reply, or the first 20 got none.
        """
        key = self._key(messages, temperature)
        with self._lock:
            if key in self._replies:
                self.counts.cached += 1
                return self._replies[key]
        try:
            with self._slots:
                completion = self._chat.complete(messages, temperature=temperature, max_tokens=self._max_tokens)
        except ChatRequestError as error:
            with self._lock:
                self.counts.failed += 1
                hopeless = self.counts.failed >= _HOPELESS and not self.counts.replies + self.counts.cached
            if hopeless:
                raise EndpointUnavailableError(f"none of {_HOPELESS} requests got a reply: {error}") from error
            raise
        tokens = {name: getattr(completion, name) for name in ("prompt_tokens", "completion_tokens")}
        with self._lock:
            self.counts.replies += 1
            for name, count in tokens.items():
                setattr(self.counts, name, getattr(self.counts, name) + count)
            if self._cache:
                self._replies[key] = completion.text
                line = {"key": key, "model": self.model, "temperature": temperature, "reply": completion.text, **tokens}
                append_objects(self._cache, [line])
        return completion.text

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results of a function that asks the judge, for several items at a time, in their order.

        Args:
            function: of an item; called on several threads.
            items: read as the results are consumed, a few in advance.
        """
        return ordered_map(function, items, self._concurrency)

    def close(self) -> None:
        """Close the connections or release the model."""
        self._chat.close()

    def _key(self, messages: Sequence[Mapping], temperature: float) -> str:
        text = json.dumps([self.model, messages, temperature, self._max_tokens], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
