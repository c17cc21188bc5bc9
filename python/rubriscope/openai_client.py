"""A client for servers that speak OpenAI's chat completions (OpenAI, vLLM, TGI, Ollama, llama.cpp, …)."""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import json
import os
import random
import re
import threading
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

__all__ = ["JudgeError", "OpenAICompatibleClient"]

_BODY_SHOWN = 200


class JudgeError(RuntimeError):
    """A judge's server gave no usable answer.

    Attributes:
        status: HTTP status of the last attempt, ``None`` where there was no response.
        body: the first 200 characters of its body.
        attempts: how often the request was sent.
    """

    def __init__(self, message: str, *, status: int | None = None, body: str = "", attempts: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.body = body
        self.attempts = attempts

    def __reduce__(self) -> tuple[Any, ...]:
        state = {"status": self.status, "body": self.body, "attempts": self.attempts}
        return type(self), self.args, state


class _AttemptFailed(Exception):
    """One attempt's failure: what to say, and whether and after how long another may follow."""

    def __init__(
        self,
        reason: str,
        *,
        status: int | None = None,
        body: str = "",
        retryable: bool = True,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.body = body[:_BODY_SHOWN]
        self.retryable = retryable
        self.retry_after_s = retry_after_s


class _LoopState:
    """What belongs to one event loop: its connections, and its places for calls."""

    def __init__(self, client: httpx.AsyncClient, max_concurrency: int) -> None:
        self.client = client
        self.places = asyncio.Semaphore(max_concurrency)


class OpenAICompatibleClient:
    """Asks ``POST {base_url}/chat/completions``; the client for ``rs.LLMJudge``.

    A response 429 or 5xx, a failed or broken connection, a time-out and a body that is no chat completion
    are tried again, at most ``retries`` times, after a random wait of up to
    ``min(backoff_max_s, backoff_base_s * 2**attempt)`` (exponential back-off, full jitter) or after what the
    server's ``Retry-After`` asks for. Any other status is final.

    One instance may be used by several event loops and threads: each loop has connections and a
    limit of its own. It pickles, without connections, and without a key that came from the environment.

    Args:
        base_url: for example ``"http://localhost:8000/v1"``.
        model: the model's name, as the server knows it.
        api_key: bearer token; ``None`` takes ``OPENAI_API_KEY``, and sends none where that is not set.
        timeout_s: seconds one attempt may take, all of it.
        max_concurrency: calls in progress at once per event loop, their waits for another attempt included.
        retries: attempts after the first.
        system_prompt: sent before each prompt.
        temperature: sampling temperature; ``None`` leaves it to the server.
        max_tokens: longest answer in tokens; ``None`` leaves it to the server.
        extra_body: further fields of the request, for example ``{"seed": 1}``.
        backoff_base_s: the first wait's upper end in seconds.
        backoff_max_s: every wait's upper end in seconds.
        retry_after_max_s: a ``Retry-After`` above this many seconds is an error at once.

    Raises:
        ImportError: httpx is not installed (``pip install rubriscope[judge]``).
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        max_concurrency: int = 8,
        retries: int = 4,
        system_prompt: str | None = None,
        temperature: float | None = 0.0,
        max_tokens: int | None = 512,
        *,
        extra_body: dict[str, Any] | None = None,
        backoff_base_s: float = 0.5,
        backoff_max_s: float = 30.0,
        retry_after_max_s: float = 120.0,
    ) -> None:
        _import_httpx()
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url must start with http:// or https://, got {base_url!r}")
        if not model:
            raise ValueError("model must be the model's name, got an empty string")
        if not timeout_s > 0:
            raise ValueError(f"timeout_s must be above 0 seconds, got {timeout_s}")
        if max_concurrency < 1:
            raise ValueError(f"max_concurrency must be at least 1, got {max_concurrency}")
        if retries < 0:
            raise ValueError(f"retries must be at least 0, got {retries}")
        for name, seconds in (("backoff_base_s", backoff_base_s), ("backoff_max_s", backoff_max_s)):
            if not seconds >= 0:
                raise ValueError(f"{name} must be at least 0 seconds, got {seconds}")
        self.base_url = base_url.rstrip("/")
        self.model = model
        self.timeout_s = timeout_s
        self.max_concurrency = max_concurrency
        self.retries = retries
        self.system_prompt = system_prompt
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.extra_body = dict(extra_body or {})
        self.backoff_base_s = backoff_base_s
        self.backoff_max_s = backoff_max_s
        self.retry_after_max_s = retry_after_max_s
        self._api_key = api_key
        self._make_loop_table()

    async def complete(self, prompt: str, **overrides: Any) -> str:
        """The model's answer to ``prompt``.

        Args:
            prompt: the user's message.
            **overrides: fields of the request that differ for this call, as ``temperature``; ``None`` leaves
                a field out.

        Raises:
            JudgeError: no usable answer after all attempts; names the last status and body.
        """
        state = self._loop_state()
        body = self._request_body(prompt, overrides)
        async with state.places:
            attempt = 0
            while True:
                try:
                    return await self._attempt(state.client, body)
                except _AttemptFailed as failure:
                    wait_s = self._wait_before_next(attempt, failure)
                    if wait_s is None:
                        raise self._error(failure, attempt + 1) from failure.__cause__
                await asyncio.sleep(wait_s)
                attempt += 1

    async def aclose(self) -> None:
        """Close every connection; on other running loops, ask them to. The client may be used again."""
        current = asyncio.get_running_loop()
        with self._lock:
            states = dict(self._loops)
            self._loops.clear()
        for loop, state in states.items():
            if loop is current:
                await state.client.aclose()
            elif loop.is_running():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(state.client.aclose(), loop))

    async def __aenter__(self) -> OpenAICompatibleClient:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self._shown_url()!r}, model={self.model!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_loops", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._make_loop_table()

    def _make_loop_table(self) -> None:
        self._lock = threading.Lock()
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopState] = (
            weakref.WeakKeyDictionary()
        )

    def _loop_state(self) -> _LoopState:
        loop = asyncio.get_running_loop()
        with self._lock:
            for stale in [other for other in self._loops if other.is_closed()]:
                del self._loops[stale]
            state = self._loops.get(loop)
            if state is None:
                httpx = _import_httpx()
                client = httpx.AsyncClient(
                    timeout=httpx.Timeout(self.timeout_s),
                    limits=httpx.Limits(max_connections=self.max_concurrency),
                )
                state = self._loops[loop] = _LoopState(client, self.max_concurrency)
            return state

    def _request_body(self, prompt: str, overrides: dict[str, Any]) -> dict[str, Any]:
        messages = [{"role": "user", "content": prompt}]
        if self.system_prompt is not None:
            messages.insert(0, {"role": "system", "content": self.system_prompt})
        fields = {
            "model": self.model,
            "messages": messages,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            **self.extra_body,
            **overrides,
        }
        return {name: value for name, value in fields.items() if value is not None}

    async def _attempt(self, client: httpx.AsyncClient, body: dict[str, Any]) -> str:
        httpx = _import_httpx()
        key = self._api_key if self._api_key is not None else os.environ.get("OPENAI_API_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            # httpx limits each phase; a server that drips bytes would outlive any number of them.
            response = await asyncio.wait_for(
                client.post(f"{self.base_url}/chat/completions", json=body, headers=headers), self.timeout_s
            )
        except (TimeoutError, httpx.TimeoutException) as error:
            raise _AttemptFailed(f"no answer within {self.timeout_s:g} s") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise _AttemptFailed(f"{type(error).__name__}: {error}") from error
        status = response.status_code
        if status != 200:
            raise _AttemptFailed(
                f"HTTP {status}",
                status=status,
                body=response.text,
                retryable=status == 429 or status >= 500,
                retry_after_s=_retry_after_s(response.headers.get("Retry-After")),
            )
        return _answer(response)

    def _wait_before_next(self, attempt: int, failure: _AttemptFailed) -> float | None:
        """Seconds to wait after attempt ``attempt`` (from 0); None where there is no next one."""
        if not failure.retryable or attempt == self.retries:
            return None
        if failure.retry_after_s is not None:
            if failure.retry_after_s > self.retry_after_max_s:
                failure.reason += (
                    f", Retry-After of {failure.retry_after_s:g} s is above "
                    f"retry_after_max_s={self.retry_after_max_s:g}"
                )
                return None
            # Spread those who were told the same moment.
            return failure.retry_after_s + random.uniform(0.0, self.backoff_base_s)
        return random.uniform(0.0, min(self.backoff_max_s, self.backoff_base_s * 2.0 ** min(attempt, 64)))

    def _error(self, failure: _AttemptFailed, attempts: int) -> JudgeError:
        times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        message = f"POST {self._shown_url()}/chat/completions failed after {times}: {failure.reason}"
        if failure.body:
            message += f": {failure.body}"
        return JudgeError(message, status=failure.status, body=failure.body, attempts=attempts)

    def _shown_url(self) -> str:
        return str(_import_httpx().URL(self.base_url).copy_with(userinfo=b"")).rstrip("/")


def _answer(response: httpx.Response) -> str:
    """The text in a chat completion."""
    try:
        document = json.loads(response.content)
    except ValueError as error:
        raise _AttemptFailed(
            f"the body is not JSON ({error})", status=response.status_code, body=response.text
        ) from error
    try:
        choice = document["choices"][0]
        content = choice["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise _AttemptFailed(
            "the body has no choices[0].message.content", status=response.status_code, body=response.text
        ) from error
    if isinstance(content, list):  # some servers answer in parts
        content = "".join(part.get("text", "") for part in content if isinstance(part, dict))
    if not isinstance(content, str):
        raise _AttemptFailed(
            f"choices[0].message.content is {content!r}, not text "
            f"(finish_reason {choice.get('finish_reason')!r})",
            status=response.status_code,
            body=response.text,
            retryable=False,  # a valid reply without text: asking again would not change it
        )
    return content


def _retry_after_s(value: str | None) -> float | None:
    """Seconds a Retry-After header asks for, 0 for a date gone by; None where it cannot be read."""
    if value is None:
        return None
    if re.fullmatch(r"\s*\d+(\.\d*)?\s*", value, re.ASCII):
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=datetime.UTC)
    return max(0.0, (date - datetime.datetime.now(datetime.UTC)).total_seconds())


def _import_httpx() -> Any:
    try:
        import httpx
    except ImportError as error:
        raise ImportError(
            "rubriscope.OpenAICompatibleClient needs httpx: pip install rubriscope[judge]"
        ) from error
    return httpx
