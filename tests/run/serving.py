"""Servers of a tiny model, in a process of their own or in a thread."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

import uvicorn
from model_folders import byte_tokenizer
from small_models import llama

from thresher.run.serve.routes import application
from thresher.run.serve.scheduler import Scheduler

TEMPLATE = (
    "{% for message in messages %}{% if message.content == 'refuse' %}"
    "{{ raise_exception('no such talk') }}{% endif %}<{{ message.role }}>{{ message.content }}"
    "{% endfor %}<assistant>"
)
CONTEXT = 512


def write_model(folder):
    """Write a model that talks bytes; token 10 ends its texts."""
    llama(vocab_size=256, max_position_embeddings=CONTEXT, eos_token_id=10).save_pretrained(folder)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


@contextmanager
def process(folder, *options):
    """Run ``thresher serve`` until the context ends; gives the process and its address."""
    command = [sys.executable, "-m", "thresher", "serve", str(folder), "--port", "0", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        try:
            line = run.stdout.readline()
            found = re.search(r"http://\S+(?=/v1)", line)
            assert found, line + run.stderr.read()
            yield run, found[0]
        finally:
            run.kill()


@contextmanager
def in_thread(engine, slots=4, queue=64, **options):
    """Serve an engine in a thread of this process; gives the scheduler and the address."""
    scheduler = Scheduler(engine.compiled, slots, queue)
    app = application(engine, "tiny", scheduler, **options)
    config = uvicorn.Config(app, port=0, lifespan="off", log_level="critical", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        listening = server.servers[0].sockets[0]
        # Or the system would hold whatever a slow reader leaves.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        port = listening.getsockname()[1]
        yield scheduler, f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
        scheduler.close()


def reluctant(address, path, body, missing=0):
    """Send a request, but for its last bytes, over a connection that takes in next to nothing."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # before the two sides agree on it
    host, port = urlsplit(address).netloc.split(":")
    sock.connect((host, int(port)))
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    sock.sendall(f"{head}Content-Length: {len(body) + missing}\r\n\r\n{body}".encode())
    return sock


def wait_until(done, seconds=20.0):
    """Return once something is so."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.005)


def request(address, path, body=None, headers=None, connection=None):
    """Send a request; gives the status, the headers and what came."""
    connection = connection or http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    kind = {} if body is None else {"Content-Type": "application/json"}
    connection.request("GET" if body is None else "POST", path, sent, kind | (headers or {}))
    response = connection.getresponse()
    held = response.read()
    return response.status, response.headers, held


def metric(address, name):
    """Return the value of a line of ``/metrics``."""
    text = request(address, "/metrics")[2].decode()
    return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)[1])
