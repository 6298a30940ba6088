"""The server as a process, asked by the openai package."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import signal
import socket
import threading
import time
from urllib.parse import urlsplit

import openai
import psutil
import pytest
from click.testing import CliRunner
from serving import metric, process, reluctant, request, wait_until, write_model

import thresher as th
from thresher.cli import main
from thresher.run.engine.sampling import Sampler

MESSAGES = [{"role": "user", "content": "hello"}]
PROMPT = "<user>hello<assistant>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("serve") / "tiny")


@pytest.fixture(scope="module")
def engine(folder):
    return th.Engine(folder)


@pytest.fixture(scope="module")
def server(folder):
    with process(folder, "--parallel", "8", "--queue", "300") as (run, address):
        yield run, address
        run.send_signal(signal.SIGINT)
        assert run.wait(timeout=60) == 0
        assert run.stderr.read() == ""


@pytest.fixture(scope="module")
def address(server):
    return server[1]


@pytest.fixture(scope="module")
def client(address):
    return openai.OpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0)


def test_models_and_health(client, address):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert request(address, "/health")[::2] == (200, b'{"status":"ok"}')


def test_a_chat_is_the_engines_text(client, engine):
    answer = client.chat.completions.create(
        model="tiny", messages=MESSAGES, temperature=0, max_tokens=30
    )
    choice = answer.choices[0]
    assert choice.message.content == engine.generate(PROMPT, max_new_tokens=30) != ""
    assert (choice.message.role, choice.finish_reason, choice.logprobs) == (
        "assistant",
        "length",
        None,
    )
    counted = answer.usage
    assert (counted.prompt_tokens, counted.completion_tokens, counted.total_tokens) == (
        len(PROMPT),
        30,
        len(PROMPT) + 30,
    )
    again = client.chat.completions.create(
        model="tiny", messages=MESSAGES, temperature=0, max_completion_tokens=30
    )
    assert again.usage.prompt_tokens_details.cached_tokens == len(PROMPT) - 1
    assert again.choices[0].message.content == choice.message.content


def test_streams_have_openais_form(address, engine):
    body = {
        "model": "tiny",
        "messages": [
            {"role": "developer", "content": "brief"},
            {
                "role": "user",
                "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}],
            },
        ],
        "temperature": 0,
        "max_tokens": 20,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    status, headers, held = request(address, "/v1/chat/completions", body)
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")
    events = held.decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(each.removeprefix("data: ")) for each in events[:-2]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-2]["choices"] == [
        {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}
    ]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 20
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1])
    assert text == engine.generate("<system>brief<user>hello<assistant>", max_new_tokens=20)


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_of_chats(client, engine, stream):
    given = client.chat.completions.create(
        model="tiny",
        messages=MESSAGES,
        seed=5,
        max_tokens=25,
        logprobs=True,
        top_logprobs=3,
        stream=stream,
    )
    chunks = list(given) if stream else [given]
    found = [c for chunk in chunks if (each := chunk.choices[0].logprobs) for c in each.content]
    ids = engine.tokenizer(PROMPT)["input_ids"]
    expected = list(engine.tokens(ids, 25, Sampler(1.0, seed=5), logprobs=3))
    assert [entry.logprob for entry in found] == [token.logprob for token in expected]
    for entry, token in zip(found, expected, strict=True):
        assert [each.logprob for each in entry.top_logprobs] == [p for _, p in token.top]
        written = engine.tokenizer.decode([int(token)])
        assert entry.token == written
        assert entry.bytes == (
            None if "\N{REPLACEMENT CHARACTER}" in written else [*written.encode()]
        )


@pytest.mark.parametrize("stream", [False, True])
def test_completions(client, engine, stream):
    given = client.completions.create(
        model="tiny", prompt="so", max_tokens=24, temperature=0, logprobs=2, stream=stream
    )
    chunks = list(given) if stream else [given]
    text = "".join(chunk.choices[0].text for chunk in chunks)
    assert text == engine.generate("so", max_new_tokens=24)
    likely = [each for chunk in chunks if (each := chunk.choices[0].logprobs)]
    offsets = [each for one in likely for each in one.text_offset]
    names = [each for one in likely for each in one.tokens]
    assert len(offsets) == 24
    for offset, name in zip(offsets, names, strict=True):
        assert text[offset:].startswith(name) or "\N{REPLACEMENT CHARACTER}" in name
    expected = engine.tokens(engine.tokenizer("so")["input_ids"], 24, logprobs=2)
    shown = [{engine.tokenizer.decode([each]) for each, _ in token.top} for token in expected]
    assert [set(top) for one in likely for top in one.top_logprobs] == shown
    tokens = client.completions.create(
        model="tiny", prompt=engine.tokenizer("so")["input_ids"], temperature=0
    )
    assert tokens.choices[0].text == engine.generate("so", max_new_tokens=16)  # OpenAI's default


def test_options_are_the_engines(client, engine):
    options = {"top_k": 20, "min_p": 0.01, "repetition_penalty": 1.2}
    for seed, top_p in [(1, 0.9), (-3, 1), (None, 0.5)]:
        found = client.completions.create(
            model="tiny",
            prompt="so",
            temperature=0.7,
            top_p=top_p,
            seed=seed,
            max_tokens=20,
            extra_body=options,
        )
        if seed is not None:
            expected = engine.generate(
                "so",
                max_new_tokens=20,
                temperature=0.7,
                top_p=top_p if top_p < 1 else None,
                seed=seed % 2**64,
                **options,
            )
            assert found.choices[0].text == expected


def test_texts_end_before_stop_strings(client, engine):
    text = engine.generate(PROMPT, max_new_tokens=60)
    for stop in (text[20:22], [text[30:33], "nothing like it"]):
        answer = client.chat.completions.create(
            model="tiny", messages=MESSAGES, temperature=0, max_tokens=60, stop=stop
        )
        expected = engine.generate(PROMPT, max_new_tokens=60, stop=stop)
        assert answer.choices[0].message.content == expected != text
        assert answer.choices[0].finish_reason == "stop"


def test_the_model_ends_a_text_itself(client, engine):
    # Some seed draws the token that does.
    for seed in range(20):
        answer = client.completions.create(
            model="tiny", prompt="a", seed=seed, max_tokens=200, temperature=2
        )
        if answer.choices[0].finish_reason == "stop":
            break
    expected = engine.generate("a", max_new_tokens=200, temperature=2.0, seed=seed)
    assert answer.choices[0].text == expected
    assert answer.usage.completion_tokens < 200


def test_two_hundred_at_once_get_what_each_would_get_alone(address, engine):
    async def ask():
        client = openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0)
        async with client:
            return await asyncio.gather(
                *[
                    client.completions.create(
                        model="tiny", prompt=f"{i % 20} says", max_tokens=12, seed=i % 20
                    )
                    for i in range(200)
                ]
            )

    answers = asyncio.run(ask())
    expected = [
        engine.generate(f"{i} says", max_new_tokens=12, temperature=1.0, seed=i) for i in range(20)
    ]
    assert [answer.choices[0].text for answer in answers] == expected * 10
    assert len({answer.id for answer in answers}) == 200
    assert metric(address, "thresher_texts_waiting") == 0


#: Values of every kind that a field does not have.
JUNK = [
    *(-1, 0, 1.5, 10**400, 1e308, -(2**70), True, False, "", "text", "\ud800", [], {}, [None]),
    *([[]], {"type": "x"}, [{"role": "user"}], [{"role": "user", "content": [{}]}], float("nan")),
]
FIELDS = [
    *("messages", "prompt", "temperature", "top_p", "top_k", "min_p", "repetition_penalty"),
    *("seed", "stop", "max_tokens", "max_completion_tokens", "logprobs", "top_logprobs"),
    *("stream", "stream_options", "n", "tools", "response_format", "logit_bias", "nonsense"),
    *("frequency_penalty", "presence_penalty", "model", "echo", "functions"),
]


def test_whatever_is_sent_is_no_fault_of_the_server(address):
    draw = random.Random(0)
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    refused = 0
    for _ in range(400):
        path = draw.choice(["/v1/chat/completions", "/v1/completions"])
        body = {"model": "tiny", "max_tokens": 1}
        body |= {"prompt": "so"} if path == "/v1/completions" else {"messages": MESSAGES}
        for name in draw.sample(FIELDS, draw.randint(1, 3)):
            body[name] = draw.choice(JUNK)
        sent = json.dumps(body).encode()
        if draw.random() < 0.2:
            sent = sent[: draw.randrange(len(sent))]
        elif draw.random() < 0.1:
            place = draw.randrange(len(sent))
            sent = sent[:place] + bytes([draw.randrange(256)]) + sent[place + 1 :]
        status, _, held = request(address, path, sent, connection=connection)
        assert status == 200 or 400 <= status < 500, (status, sent, held)
        if status != 200:
            refused += 1
            error = json.loads(held)["error"]
            assert error["type"] == "invalid_request_error"
            assert error["message"]
    assert refused > 300


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'{"prompt": "\\udc80"}', "half a surrogate pair"),
    ],
)
def test_bodies_that_hold_nothing(address, sent, said):
    for path in ("/v1/completions", "/v1/chat/completions"):
        status, _, held = request(address, path, sent)
        assert status == 400
        assert said in json.loads(held)["error"]["message"]


def test_what_is_refused_otherwise(client, address, engine):
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-4o'") as error:
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert error.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="ask for at most 510") as error:
        client.completions.create(model="tiny", prompt="so", max_tokens=511)
    assert error.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="context 512; shorten it") as error:
        client.completions.create(model="tiny", prompt="x" * 600)
    assert error.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="outside the model's vocabulary"):
        client.completions.create(model="tiny", prompt=[3, 999])
    with pytest.raises(openai.BadRequestError, match="at least one token"):
        client.completions.create(model="tiny", prompt="")
    with pytest.raises(openai.BadRequestError, match="does not take these messages: no such talk"):
        client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "refuse"}]
        )
    status, _, held = request(address, "/v1/completions", b" " * (5 * 2**20))
    assert status == 413
    assert "longer than" in json.loads(held)["error"]["message"]
    status, _, held = request(address, "/v1/completions", b"{}", {"Content-Type": "text/plain"})
    assert (status, json.loads(held)["error"]["param"]) == (400, None)
    for path, body, expected in [("/v1/embeddings", {}, 404), ("/v1/completions", None, 405)]:
        status, _, held = request(address, path, body)
        assert status == expected
        assert path in json.loads(held)["error"]["message"]


def test_memory_stays_where_it_is(server):
    run, address = server
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)

    def ask(count):
        for i in range(count):
            body = {"prompt": f"{i} " * 20, "max_tokens": 4, "logprobs": 5, "stream": i % 2 == 0}
            assert request(address, "/v1/completions", body, connection=connection)[0] == 200
        return psutil.Process(run.pid).memory_info().rss

    before = ask(200)
    assert ask(400) - before < 3 * 2**20


def test_a_taken_port_is_said_before_the_model_is_loaded(folder, address):
    port = str(urlsplit(address).port)
    missing = folder.parent / "engine"
    missing.mkdir()
    (missing / "engine.json").write_text("{")  # what loading it would stumble over
    found = CliRunner().invoke(main, ["serve", str(missing), "--port", port])
    assert found.exit_code == 1
    assert found.output.count("\n") == 1
    assert f"port {port} of 127.0.0.1 cannot be had" in found.output


def ask_for_much(address, heard, number):
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    body = {"prompt": "so", "max_tokens": 500, "temperature": 0, "stream": True}
    connection.request(
        "POST",
        "/v1/completions",
        json.dumps(body),
        {"Content-Type": "application/json"},
    )
    response = connection.getresponse()
    heard[number] = None  # its first line has come
    heard[number] = response.read()


def test_what_is_under_way_when_it_is_told_to_stop_is_finished(folder, engine):
    with process(folder, "--parallel", "3") as (run, address):
        host, port = urlsplit(address).netloc.split(":")
        # One reads nothing, and one never sends the rest of its request.
        body = json.dumps(
            {"messages": MESSAGES, "max_tokens": 480, "logprobs": True, "top_logprobs": 20}
            | {"stream": True, "temperature": 0}
        )
        idle = [reluctant(address, "/v1/chat/completions", body, missing) for missing in (0, 9)]
        heard = {}
        threads = [
            threading.Thread(target=ask_for_much, args=(address, heard, number))
            for number in range(9)
        ]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(heard) == 9)
        assert None in heard.values()
        run.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        with pytest.raises(OSError, match=r"refused|reset"):
            socket.create_connection((host, int(port))).close()
        for thread in threads:
            thread.join()
        assert run.wait(timeout=60) == 0
        assert run.stderr.read() == ""
        for each in idle:
            each.close()
    expected = engine.generate("so", max_new_tokens=500)
    for held in heard.values():
        events = held.decode().split("\n\n")
        assert events[-2] == "data: [DONE]"
        chunks = [json.loads(each.removeprefix("data: ")) for each in events[:-2]]
        assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == expected
