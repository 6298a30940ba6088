"""Whose turn it is: the queue, clients that go away or read slowly, and what fails."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
import openai
import pytest
from click.testing import CliRunner
from model_folders import byte_tokenizer
from serving import CONTEXT, TEMPLATE, in_thread, metric, reluctant, request, wait_until
from small_models import llama

import thresher as th
from thresher.cli import main
from thresher.run.engine.sampling import Sampler
from thresher.run.engine.session import Batch
from thresher.run.engine.text import Piece, TextStream
from thresher.run.serve.scheduler import End, FullError, Scheduler, Task

BODY = {"prompt": "so", "max_tokens": 400, "temperature": 0, "stream": True}


@pytest.fixture(scope="module")
def engine():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return th.Engine(llama(vocab_size=256, max_position_embeddings=CONTEXT), tokenizer=tokenizer)


@pytest.fixture
def slowly(monkeypatch):
    """Have every pass take a moment; the tokens of each are noted."""
    own, passes = Batch.logits, []

    def logits(self, texts):
        passes.append([len(text) for _, text, _ in texts])
        time.sleep(0.01)
        return own(self, texts)

    monkeypatch.setattr(Batch, "logits", logits)
    return passes


def opened(address, body=BODY):
    """Send a request and read nothing."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    sent = json.dumps(body)
    connection.request("POST", "/v1/completions", sent, {"Content-Type": "application/json"})
    return connection


def leave(connection):
    connection.sock.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("stream", [True, False])
def test_who_goes_away_makes_room(engine, slowly, stream):
    with in_thread(engine, slots=1) as (scheduler, address):
        first = opened(address, BODY | {"stream": stream})
        wait_until(lambda: scheduler.active)
        waiting = opened(address, BODY | {"stream": stream})
        wait_until(lambda: scheduler.waiting)
        leave(waiting)
        wait_until(lambda: not scheduler.waiting)
        assert scheduler.active
        if stream:
            assert first.getresponse().read(10)
        leave(first)
        wait_until(lambda: not scheduler.active)
        assert len(slowly) < 200
        short = {"prompt": "so", "max_tokens": 3, "temperature": 0}
        assert request(address, "/v1/completions", short)[0] == 200
        assert metric(address, "thresher_new_tokens_total") == 3
        assert metric(address, "thresher_prompt_tokens_total") == 2


def test_who_reads_slowly_holds_nobody_up_and_loses_nothing(engine):
    said = [{"role": "user", "content": "hello"}]
    body = BODY | {"messages": said, "max_tokens": 480, "logprobs": True, "top_logprobs": 20}
    del body["prompt"]
    with in_thread(engine, slots=1) as (_, address):
        slow = reluctant(address, "/v1/chat/completions", json.dumps(body))
        wait_until(lambda: metric(address, "thresher_new_tokens_total") == 480)
        for _ in range(3):
            assert request(address, "/v1/completions", {"prompt": "so", "max_tokens": 3})[0] == 200
        # What was written has filled all that is on the way.
        assert b'thresher_requests_total{path="/v1/chat' not in request(address, "/metrics")[2]
        response = http.client.HTTPResponse(slow, method="POST")
        response.begin()
        held = response.read()
        slow.close()
    chunks = [json.loads(each[6:]) for each in held.decode().split("\n\n")[:-2]]
    likely = [entry["logprobs"] for chunk in chunks for entry in chunk["choices"]]
    assert sum(len(each["content"]) for each in likely if each) == 480
    assert held.endswith(b"data: [DONE]\n\n")


def test_who_comes_when_the_line_is_full_is_told_when_to_come_again(engine, slowly):
    with in_thread(engine, slots=2, queue=3) as (scheduler, address):
        under_way = [opened(address) for _ in range(5)]
        wait_until(lambda: scheduler.active == 2 and scheduler.waiting == 3)
        status, headers, held = request(address, "/v1/completions", BODY)
        assert (status, headers["Retry-After"]) == (503, "1")
        error = json.loads(held)["error"]
        assert (error["type"], error["code"]) == ("server_error", "queue_full")
        assert "3 requests wait" in error["message"]
        for each in under_way:
            leave(each)
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="any", max_retries=3)
        answer = client.completions.create(model="tiny", prompt="so", max_tokens=3, temperature=0)
        assert answer.choices[0].text == engine.generate("so", max_new_tokens=3)


@pytest.mark.parametrize("key", ["secret", "schlüssel"])
def test_the_key_is_asked_for(engine, key):
    with in_thread(engine, api_key=key) as (_, address):
        for path in ("/v1/models", "/metrics", "/v1/completions", "/nowhere"):
            for given in (
                "",
                "Bearer",
                "Bearer wrong",
                f"Basic {key}",
                f"Bearer {key}x",
                "Bearer ",
            ):
                header = {"Authorization": given.encode()} if given else {}
                status, headers, held = request(address, path, headers=header)
                assert status == 401
                assert headers["WWW-Authenticate"] == "Bearer"
                assert json.loads(held)["error"]["code"] == "invalid_api_key"
        assert request(address, "/health")[0] == 200
        header = {"Authorization": f"Bearer {key}".encode()}
        assert request(address, "/v1/models", headers=header)[0] == 200
        assert request(address, "/nowhere", headers=header)[0] == 404


def test_a_key_may_come_from_the_environment():
    assert "THRESHER_API_KEY" in CliRunner().invoke(main, ["serve", "--help"]).output


def test_requests_are_counted(engine):
    with in_thread(engine) as (_, address):
        for _ in range(2):
            request(address, "/v1/completions", {"prompt": "so", "max_tokens": 3})
        request(address, "/v1/completions", {})
        request(address, "/nowhere")
        for labels, count in [
            ('path="/v1/completions",status="200"', 2),
            ('path="/v1/completions",status="400"', 1),
            ('path="other",status="404"', 1),
        ]:
            assert metric(address, f"thresher_requests_total{{{labels}}}") == count
        assert metric(address, 'thresher_request_seconds_count{path="/v1/completions"}') == 3
        assert metric(address, "thresher_cached_tokens_total") == 1


@pytest.mark.parametrize("stream", [True, False])
def test_a_model_whose_numbers_are_none_is_told_of(stream):
    model = llama(vocab_size=256)
    model.model.norm.weight.data[0] = float("inf")
    broken = th.Engine(model, tokenizer=byte_tokenizer())
    body = {"prompt": "so", "stream": stream}
    with in_thread(broken) as (_, address):
        status, _, held = request(address, "/v1/completions", body)
        assert status == (200 if stream else 500)
        assert b"logits are not finite" in held
        assert b"server_error" in held
        assert b"DONE" not in held


def test_chats_need_a_template_and_completions_do_not():
    plain = th.Engine(llama(vocab_size=256), tokenizer=byte_tokenizer())
    with in_thread(plain) as (_, address):
        body = {"messages": [{"role": "user", "content": "hello"}]}
        status, _, held = request(address, "/v1/chat/completions", body)
        assert status == 400
        assert "no chat template" in json.loads(held)["error"]["message"]
        assert request(address, "/v1/completions", {"prompt": "so"})[0] == 200


class Heard:
    """A text that was asked for, and what came of it."""

    def __init__(self, engine, prompt, most=8, logprobs=None, **options):
        text = engine.continuation(prompt, most, Sampler(**options), logprobs)
        self.all, self.ended = [], threading.Event()
        self.task = Task(text, TextStream(engine.tokenizer, prompt, ()), self.deliver)

    def deliver(self, heard):
        self.all.append(heard)
        if isinstance(heard, End):
            self.ended.set()

    @property
    def end(self):
        assert self.ended.wait(20)
        return self.all[-1]

    @property
    def text(self):
        return "".join(each for each in self.all if isinstance(each, Piece))


@pytest.fixture
def scheduler(engine):
    made = []

    def make(slots=4, queue=64):
        made.append(Scheduler(engine.compiled, slots, queue))
        return made[-1]

    yield make
    for each in made:
        each.close()


def prompts(count, seed=0):
    draw = np.random.default_rng(seed)
    return [draw.integers(32, 127, draw.integers(1, 200)).tolist() for _ in range(count)]


def test_texts_under_way_together_are_those_of_the_engine(engine, scheduler):
    running = scheduler(slots=5)
    asked = [
        Heard(engine, prompt, 5 + 7 * i, 2, temperature=i % 3 * 0.5, seed=i)
        for i, prompt in enumerate(prompts(16))
    ]
    for each in asked:
        running.submit(each.task)
    for i, (each, prompt) in enumerate(zip(asked, prompts(16), strict=True)):
        sampler = Sampler(temperature=i % 3 * 0.5, seed=i)
        expected = list(engine.tokens(prompt, 5 + 7 * i, sampler, logprobs=2))
        end = each.end
        assert (end.reason, end.prompt, end.new) == ("length", len(prompt), len(expected))
        found = [token for piece in each.all[:-1] for token in piece.tokens]
        shown = [(int(token), token.logprob, token.top) for token in found]
        # The last bytes may be half a character, whose text comes with the rest.
        assert shown == [(int(token), token.logprob, token.top) for token in expected]
    assert running.active == running.waiting == 0


def test_a_long_prompt_holds_nobody_up(engine, scheduler, slowly):
    running = scheduler()
    short, long = Heard(engine, [65], 100), Heard(engine, [66] * 400, 1)
    running.submit(short.task)
    wait_until(lambda: len(short.all) > 2)
    running.submit(long.task)
    assert long.end.reason == short.end.reason == "length"
    both = [each for each in slowly if len(each) == 2]
    assert len(both) >= 6  # the prompt came in parts, beside a token of the other in each
    assert [each[1] for each in both][:3] == [63, 126, 189]


def test_a_prompt_goes_where_most_of_it_is(engine, scheduler):
    running = scheduler(slots=2)
    first, second = [65] * 90, [65] * 20 + [66] * 60

    def cached(prompt):
        asked = Heard(engine, prompt, 1)
        running.submit(asked.task)
        return asked.end.cached

    assert cached(first) == 0
    assert cached(second) == 0  # not where it would end the first, of which it has a fifth
    assert cached([*first, 67, 68]) == 90
    assert cached([*second, 69]) == 80
    assert cached([*first, 67, 70]) == 91
    assert cached([71] * 40) == 0  # instead of the longest unused
    assert cached([*first, 67, 71]) == 91
    assert cached([*second, 69, 70]) == 0


def test_who_waits_too_long_a_line_is_refused(engine, scheduler, slowly):
    running = scheduler(slots=1, queue=1)
    asked = [Heard(engine, [65], 50) for _ in range(3)]
    running.submit(asked[0].task)
    running.submit(asked[1].task)
    with pytest.raises(FullError):
        running.submit(asked[2].task)
    running.cancel(asked[0].task)
    assert asked[1].end.new == 50
    assert not asked[0].ended.is_set()
    running.submit(asked[2].task)
    assert asked[2].end.new == 50


def test_a_pass_that_fails_ends_its_texts_and_not_the_server(engine, scheduler, monkeypatch):
    running, own, failing = scheduler(slots=2), Batch.logits, [True]

    def logits(self, texts):
        found = own(self, texts)
        if failing and len(texts) == 2:
            failing.clear()
            raise MemoryError
        return found

    monkeypatch.setattr(Batch, "logits", logits)
    asked = [Heard(engine, prompt, 200) for prompt in prompts(5)]
    for each in asked:
        running.submit(each.task)
    ends = [each.end for each in asked]
    assert [end.reason for end in ends] == ["error"] * 2 + ["length"] * 3
    assert "MemoryError" in ends[0].error
    for each, prompt in list(zip(asked, prompts(5), strict=True))[2:]:
        assert each.text == engine.generate(prompt, max_new_tokens=200)


def test_many_ask_through_few_connections(engine):
    with in_thread(engine, slots=3) as (_, address), ThreadPoolExecutor(12) as pool:
        body = {"prompt": "so", "max_tokens": 5, "temperature": 0}
        found = list(
            pool.map(lambda _: json.loads(request(address, "/v1/completions", body)[2]), range(60))
        )
    assert {each["choices"][0]["text"] for each in found} == {
        engine.generate("so", max_new_tokens=5)
    }
