"""The client against a real HTTP server on this machine that does everything servers do wrong."""

import asyncio
import contextlib
import copy
import datetime
import email.utils
import gc
import json
import pickle
import subprocess
import sys

import pytest
from rubriscope.judge import LLMJudge
from rubriscope.openai_client import JudgeError, OpenAICompatibleClient, _retry_after_s


def completion(text="0.5", **choice):
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}, **choice}]}).encode()


def reply(status=200, body=None, headers=(), length=None):
    """A response's bytes; ``length`` is what Content-Length claims."""
    body = completion() if body is None else body
    head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


RESET = "reset"  # abort the connection instead of answering
HANG = "hang"  # never answer
TRUNCATED = "truncated"  # claim more bytes than are sent, then close


class Server:
    """Plays a script of responses, one a request, the last one for ever; remembers the requests."""

    def __init__(self, *script):
        self.script = list(script) or [reply()]
        self.requests = []
        self.connections = 0
        self.in_progress = self.most_in_progress = 0
        self.tasks = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"
        return self

    async def __aexit__(self, *exception):
        self._server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        self.connections += 1
        self.tasks.add(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while await self._answer(reader, writer):
                pass
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def _answer(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in head[1:] if line)}
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        self.requests.append((head[0], headers, body))
        act = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if callable(act):
            act = act(body)
        self.in_progress += 1
        self.most_in_progress = max(self.most_in_progress, self.in_progress)
        await asyncio.sleep(0.002)
        self.in_progress -= 1
        if act == RESET:
            writer.transport.abort()
            return False
        if act == HANG:
            await asyncio.sleep(3600)
        if act == TRUNCATED:
            writer.write(reply(length=10_000))
            await writer.drain()
            return False
        writer.write(act)
        await writer.drain()
        return True


def client_of(server, **options):
    options = {"backoff_base_s": 0.001, "retries": 2, "timeout_s": 5.0, **options}
    return OpenAICompatibleClient(server.url, "a-model", **options)


def play(*script, calls=1, overrides=None, **options):
    """Run the script; the answers (or errors) and the server."""

    async def run():
        async with Server(*script) as server, client_of(server, **options) as client:
            work = (client.complete(f"prompt {i}", **(overrides or {})) for i in range(calls))
            return await asyncio.gather(*work, return_exceptions=True), server

    return asyncio.run(run())


def play_one(*script, **options):
    answers, server = play(*script, **options)
    return answers[0], server


@pytest.fixture
def waits(monkeypatch):
    """The client's waits in seconds, none of them waited."""
    seconds = []
    real = asyncio.sleep

    async def sleep(delay, *rest):
        if sys._getframe(1).f_code.co_filename.endswith("/openai_client.py"):
            seconds.append(delay)
            delay = 0
        return await real(delay, *rest)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return seconds


@pytest.fixture(autouse=True)
def no_key_in_the_environment(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_the_request(monkeypatch):
    answer, server = play_one(reply(body=completion("fine: 0.5")), system_prompt="Be strict.", api_key="k")
    assert answer == "fine: 0.5"
    line, headers, body = server.requests[0]
    assert line == "POST /v1/chat/completions HTTP/1.1"
    assert headers["authorization"] == "Bearer k" and headers["content-type"] == "application/json"
    assert body == {
        "model": "a-model",
        "messages": [
            {"role": "system", "content": "Be strict."},
            {"role": "user", "content": "prompt 0"},
        ],
        "temperature": 0.0,
        "max_tokens": 512,
    }


def test_fields_of_the_request_can_be_changed_and_left_out():
    _, server = play_one(
        max_tokens=None,
        extra_body={"seed": 1, "max_completion_tokens": 9},
        overrides={"temperature": 0.5, "seed": 2},
    )
    body = server.requests[0][2]
    assert {k: v for k, v in body.items() if k not in ("model", "messages")} == {
        "temperature": 0.5,
        "seed": 2,
        "max_completion_tokens": 9,
    }


def test_the_key_comes_from_the_environment_at_the_call(monkeypatch):
    assert "authorization" not in play_one()[1].requests[0][1]
    monkeypatch.setenv("OPENAI_API_KEY", "from-env")
    assert play_one()[1].requests[0][1]["authorization"] == "Bearer from-env"
    assert play_one(api_key="given")[1].requests[0][1]["authorization"] == "Bearer given"


@pytest.mark.parametrize(
    "trouble",
    [
        reply(429, b"slow down"),
        reply(500, b"oops"),
        reply(503, b"busy"),
        RESET,
        TRUNCATED,
        reply(200, b"<html>a proxy's page</html>"),
        reply(200, b"\xff\xfe\x00"),
        reply(200, b'{"choices": []}'),
        reply(200, b'{"error": {"message": "overloaded"}}'),
        reply(200, b'["choices"]'),
    ],
    ids=["429", "500", "503", "reset", "truncated", "html", "bytes", "no-choice", "error", "list"],
)
def test_trouble_passes_or_ends_in_an_error_after_all_attempts(trouble):
    answer, server = play_one(trouble, trouble, reply(body=completion("0.75")))
    assert answer == "0.75" and len(server.requests) == 3

    error, server = play_one(trouble)
    assert isinstance(error, JudgeError) and error.attempts == len(server.requests) == 3
    assert str(error).startswith(f"POST {server.url}/chat/completions failed after 3 attempts: ")


def test_the_error_names_status_and_the_start_of_the_body():
    error, _ = play_one(reply(500, b"x" * 150 + b"y" * 150))
    assert error.status == 500
    assert error.body == "x" * 150 + "y" * 50
    assert f"HTTP 500: {error.body}" in str(error) and "y" * 51 not in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.status, again.body, again.attempts) == (str(error), 500, error.body, 3)


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 422])
def test_other_statuses_are_final(status):
    error, server = play_one(reply(status, b"no"))
    assert isinstance(error, JudgeError) and error.status == status
    assert len(server.requests) == error.attempts == 1 and "after 1 attempt: HTTP" in str(error)


def test_a_reply_without_text_is_final():
    error, server = play_one(reply(body=completion(None, finish_reason="length")))
    assert "content is None, not text (finish_reason 'length')" in str(error) and len(server.requests) == 1


def test_text_in_parts_and_empty_text():
    assert play_one(reply(body=completion([{"type": "text", "text": "0."}, {"text": "5"}])))[0] == "0.5"
    assert play_one(reply(body=completion("")))[0] == ""


def test_a_slow_server_times_out_and_is_asked_again():
    answer, server = play_one(HANG, reply(body=completion("0.25")), timeout_s=0.05)
    assert answer == "0.25" and len(server.requests) == 2
    error, server = play_one(HANG, timeout_s=0.02, retries=1)
    assert "failed after 2 attempts: no answer within 0.02 s" in str(error) and error.status is None


def test_a_server_that_drips_bytes_times_out():
    async def run():
        async def drip(reader, writer):
            with contextlib.suppress(ConnectionError):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while True:
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.005)
            writer.close()

        server = await asyncio.start_server(drip, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = OpenAICompatibleClient(f"http://127.0.0.1:{port}", "m", timeout_s=0.05, retries=0)
        try:
            with pytest.raises(JudgeError, match=r"no answer within 0\.05 s"):
                await client.complete("x")
        finally:
            await client.aclose()
            server.close()

    asyncio.run(run())


def test_nobody_listens():
    async def run():
        async with Server() as server:
            url = server.url
        async with OpenAICompatibleClient(url, "m", retries=1, backoff_base_s=0.001) as client:
            with pytest.raises(JudgeError, match="failed after 2 attempts: ConnectError") as caught:
                await client.complete("x")
        assert caught.value.status is None and caught.value.__cause__ is not None

    asyncio.run(run())


def test_back_off_doubles_up_to_its_end_with_full_jitter(waits):
    for _ in range(30):
        play_one(reply(503, b""), retries=6, backoff_base_s=1.0, backoff_max_s=8.0)
    ends = [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    for attempt, end in enumerate(ends):
        drawn = waits[attempt :: len(ends)]
        assert len(drawn) == 30 and all(0 <= w <= end for w in drawn)
        assert min(drawn) < end / 2 < max(drawn)


def test_retry_after_in_seconds(waits):
    answer, _ = play_one(reply(429, b"", ["Retry-After: 7"]), reply(), backoff_base_s=0.5)
    assert answer == "0.5" and len(waits) == 1 and 7.0 <= waits[0] <= 7.5


def test_retry_after_as_a_date(waits):
    when = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=60)
    header = "Retry-After: " + email.utils.format_datetime(when, usegmt=True)
    play_one(reply(503, b"", [header]), reply(), backoff_base_s=0.5)
    assert 50 <= waits[0] <= 60.5


def test_retry_after_of_an_hour_is_an_error_at_once(waits):
    error, server = play_one(reply(429, b"quota", ["Retry-After: 3600"]))
    assert "Retry-After of 3600 s is above retry_after_max_s=120" in str(error)
    assert error.status == 429 and len(server.requests) == 1 and waits == []


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("5", 5.0),
        (" 5 ", 5.0),
        ("0.25", 0.25),
        ("0", 0.0),
        ("-1", None),
        ("soon", None),
        ("nan", None),
        ("٣", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:00", 0.0),
    ],
)
def test_retry_after_values(value, seconds):
    assert _retry_after_s(value) == seconds


def test_calls_at_once_are_limited_and_each_gets_its_answer():
    def echo(body):
        return reply(body=completion(body["messages"][-1]["content"]))

    answers, server = play(echo, calls=20, max_concurrency=3)
    assert answers == [f"prompt {i}" for i in range(20)]
    assert server.most_in_progress == 3 and server.connections <= 3


def test_a_call_keeps_its_place_while_it_waits_for_another_attempt():
    _, server = play(reply(503, b""), reply(503, b""), reply(), calls=2, max_concurrency=1)
    prompts = [body["messages"][-1]["content"] for _, _, body in server.requests]
    assert prompts == ["prompt 0"] * 3 + ["prompt 1"]


def test_one_client_over_several_event_loops():
    async def ask(client, url):
        client.base_url = url
        return await client.complete("x")

    async def run(client):
        async with Server() as server:
            try:
                return await ask(client, server.url)
            finally:
                await client.aclose()

    client = OpenAICompatibleClient("http://127.0.0.1:1", "m", retries=0)
    assert [asyncio.run(run(client)) for _ in range(3)] == ["0.5"] * 3


def test_a_loop_that_ended_without_aclose_leaves_nothing_behind(recwarn):
    async def run(client):
        async with Server() as server:
            client.base_url = server.url
            return await client.complete("x")

    client = OpenAICompatibleClient("http://127.0.0.1:1", "m", retries=0)
    for _ in range(3):
        assert asyncio.run(run(client)) == "0.5"
        assert len(client._loops) == 1
    client._loops.clear()
    gc.collect()


def test_it_works_again_after_aclose():
    async def run():
        async with Server() as server:
            client = client_of(server)
            first = await client.complete("a")
            await client.aclose()
            await client.aclose()
            second = await client.complete("b")
            await client.aclose()
            return first, second, server.connections

    assert asyncio.run(run()) == ("0.5", "0.5", 2)


def test_cancellation_is_not_retried():
    async def run():
        async with Server(HANG) as server, client_of(server) as client:
            call = asyncio.create_task(client.complete("x"))
            while not server.requests:
                await asyncio.sleep(0.001)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert len(server.requests) == 1

    asyncio.run(run())


def test_as_the_client_of_a_judge():
    async def run():
        script = reply(429, b""), reply(body=completion("Score: 0.75"))
        async with Server(*script) as server, client_of(server) as client:
            return await LLMJudge("Rate {action}", client)("act", None), server

    score, server = asyncio.run(run())
    assert score == 0.75 and score.explanation == "Score: 0.75"
    assert server.requests[1][2]["messages"] == [{"role": "user", "content": "Rate act"}]


@pytest.mark.parametrize(
    "twin", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))], ids=["copy", "pickle"]
)
def test_it_copies_without_connections(twin):
    async def run():
        async with Server() as server, client_of(server) as client:
            await client.complete("x")
            other = twin(client)
            assert other.max_concurrency == client.max_concurrency and not other._loops
            async with other:
                return await other.complete("y")

    assert asyncio.run(run()) == "0.5"


def test_the_environments_key_is_not_pickled(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-env")
    assert b"sk-from-env" not in pickle.dumps(OpenAICompatibleClient("http://h", "m"))


def test_secrets_are_not_shown():
    client = OpenAICompatibleClient("http://user:pw@127.0.0.1:1/v1", "m", api_key="sk-1", retries=0)
    assert repr(client) == "OpenAICompatibleClient(base_url='http://127.0.0.1:1/v1', model='m')"

    async def run():
        async with client:
            await client.complete("x")

    with pytest.raises(JudgeError) as caught:
        asyncio.run(run())
    assert "pw" not in str(caught.value) and "sk-1" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"base_url": "localhost:8000"},
            "base_url must start with http:// or https://, got 'localhost:8000'",
        ),
        ({"model": ""}, "model must be"),
        ({"timeout_s": 0}, "timeout_s must be above 0 seconds, got 0"),
        ({"max_concurrency": 0}, "max_concurrency must be at least 1, got 0"),
        ({"retries": -1}, "retries must be at least 0, got -1"),
        ({"backoff_base_s": -1}, "backoff_base_s must be at least 0 seconds, got -1"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        OpenAICompatibleClient(**{"base_url": "http://h", "model": "m", **options})


def test_without_httpx_the_import_works_and_the_client_says_what_to_install():
    code = """
import sys
sys.modules["httpx"] = None
from rubriscope.openai_client import OpenAICompatibleClient
try:
    OpenAICompatibleClient("http://h", "m")
except ImportError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install rubriscope[judge]" in run.stdout
