"""The application: who may ask for what where."""

from __future__ import annotations

__all__ = ["application"]

import asyncio
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

from jinja2 import TemplateError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ...core.errors import DataError, OptionError
from ..engine.chat import NO_TEMPLATE, conversation_ids
from ..engine.engine import Engine
from ..engine.text import Piece, TextStream
from .answers import ChatForm, CompletionForm, Form, TokenTexts, models_body
from .bodies import Asked, Problem, read_chat, read_completion
from .errors import HANDLERS, RefusedError, refused_for
from .metrics import Metrics
from .replies import Hearing, Reply
from .scheduler import End, FullError, Scheduler, Task

#: Bytes of a request: a million tokens are about as many.
_MOST_BODY = 4 * 2**20
#: Seconds after which a client that was turned away may try again.
_RETRY_AFTER = 1


def application(
    engine: Engine, name: str, scheduler: Scheduler, api_key: str | None = None
) -> ASGIApp:
    """Return the application that answers with a model's texts.

    Parameters
    ----------
    engine : Engine
        With a tokenizer.
    name : str
        Of the model.
    scheduler : Scheduler
        Of the same engine.
    api_key : str, optional
        Asked for everywhere but at ``/health``.

    Returns
    -------
    application of ASGI
    """
    routes = _Routes(engine, name, scheduler)
    app: ASGIApp = Starlette(routes=routes.all, exception_handlers=HANDLERS)
    if api_key is not None:
        app = _guarded(app, api_key.encode())
    return routes.metrics.counting(app)


def _guarded(app: ASGIApp, key: bytes) -> ASGIApp:
    """Return an application for those who know a key."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope["headers"]).get(b"authorization", b"")
        kind, _, shown = given.partition(b" ")
        # In the same time whatever is given, so that a key cannot be guessed byte by byte.
        known = hmac.compare_digest(shown.strip(), key) and kind.lower() == b"bearer"
        if known or scope["path"] == "/health":
            await app(scope, receive, send)
            return
        refused = RefusedError(
            401,
            "the API key is missing or wrong; send the header Authorization: Bearer KEY",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
        await refused.response()(scope, receive, send)

    return guarded


class _Routes:
    def __init__(self, engine: Engine, name: str, scheduler: Scheduler) -> None:
        self._engine, self._name, self._scheduler = engine, name, scheduler
        self._texts, self._started = TokenTexts(engine.tokenizer), int(time.time())
        self._one_at_a_time = asyncio.Lock()
        self.all = [
            Route("/health", self._health),
            Route("/metrics", self._metrics),
            Route("/v1/models", self._models),
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/completions", self._complete, methods=["POST"]),
        ]
        self.metrics = Metrics(scheduler, {route.path for route in self.all})

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _metrics(self, request: Request) -> Response:
        return self.metrics.response()

    async def _models(self, request: Request) -> Response:
        return JSONResponse(models_body(self._name, self._started))

    async def _chat(self, request: Request) -> Any:
        return await self._answer(request, read_chat, ChatForm, self._conversation)

    async def _complete(self, request: Request) -> Any:
        return await self._answer(request, read_completion, CompletionForm, self._prompt)

    async def _answer(
        self,
        request: Request,
        read: Callable[[dict[str, Any]], Asked | list[Problem]],
        form: type[Form],
        encode: Callable[[Any], list[int]],
    ) -> Reply:
        asked = read(await _body(request))
        if not isinstance(asked, Asked):
            raise refused_for(asked)
        if asked.model not in (None, self._name):
            said = f"there is no model {asked.model!r}; this server has {self._name!r}"
            raise RefusedError(404, said, "model", "model_not_found")
        async with self._one_at_a_time:  # tokenizers are not made for several threads
            ids = await asyncio.to_thread(encode, asked.prompt)
        hearing = Hearing()
        task = self._task(asked, ids, hearing)
        try:
            self._scheduler.submit(task)
        except FullError:
            said = f"{self._scheduler.waiting} requests wait already; try again later"
            headers = {"Retry-After": str(_RETRY_AFTER)}
            raise RefusedError(503, said, code="queue_full", headers=headers) from None
        written = form(self._name, self._texts, asked.logprobs is not None, asked.usage)
        return Reply(hearing, written, asked.stream, lambda: self._scheduler.cancel(task))

    def _task(self, asked: Asked, ids: list[int], hearing: Hearing) -> Task:
        context = self._engine.context
        most = asked.max_new_tokens or max(1, context - len(ids))
        try:
            text = self._engine.continuation(ids, most, asked.sampler, asked.logprobs)
        except (DataError, OptionError) as error:
            code = "context_length_exceeded" if len(ids) + most > context else None
            said = str(error).replace("max_new_tokens", "max_tokens")
            raise RefusedError(400, said, code=code) from error

        def deliver(heard: Piece | End) -> None:
            if isinstance(heard, End):
                self.metrics.count_tokens(heard)
            hearing.deliver(heard)

        return Task(text, TextStream(self._engine.tokenizer, ids, asked.stop), deliver)

    def _prompt(self, prompt: str | list[int]) -> list[int]:
        if not isinstance(prompt, str):
            return prompt
        ids: list[int] = self._engine.tokenizer(prompt)["input_ids"]
        return ids

    def _conversation(self, messages: list[dict[str, str]]) -> list[int]:
        tokenizer = self._engine.tokenizer
        if getattr(tokenizer, "chat_template", None) is None:
            raise RefusedError(400, f"{NO_TEMPLATE}; use /v1/completions", "messages")
        try:
            return conversation_ids(tokenizer, messages)
        except TemplateError as error:
            said = f"the model's chat template does not take these messages: {error}"
            raise RefusedError(400, said, "messages") from error


async def _body(request: Request) -> dict[str, Any]:
    """Return the object that a request brings."""
    # A page of another site can make a browser send anything but this without asking first.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RefusedError(400, "send the header Content-Type: application/json")
    held = bytearray()
    async for chunk in request.stream():
        held += chunk
        if len(held) > _MOST_BODY:
            raise RefusedError(413, f"the body is longer than {_MOST_BODY} bytes")
    try:
        body = json.loads(held)
        json.dumps(body, ensure_ascii=False).encode()  # halves of characters cannot be
    except UnicodeEncodeError as error:
        raise RefusedError(400, "a text in the body holds half a surrogate pair") from error
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, f"the body is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise RefusedError(400, f"the body must be a JSON object, not {type(body).__name__}")
    return body
