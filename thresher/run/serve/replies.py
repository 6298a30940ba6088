"""A text on its way to the client that asked for it, which may go away."""

from __future__ import annotations

__all__ = ["Hearing", "Reply"]

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from ..engine.text import Piece
from .answers import Form, error_body, event
from .scheduler import End

_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # proxies would hold pieces back
]


class Hearing:
    """Brings what the scheduler's thread delivers to the event loop that it is made in."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._heard: asyncio.Queue[Piece | End] = asyncio.Queue()

    def deliver(self, heard: Piece | End) -> None:
        """Take a piece or the end, in any thread."""
        with suppress(RuntimeError):  # the loop has ended: nobody listens
            self._loop.call_soon_threadsafe(self._heard.put_nowait, heard)

    async def all(self) -> AsyncIterator[Piece | End]:
        """Yield the pieces and the end."""
        while True:
            heard = await self._heard.get()
            yield heard
            if isinstance(heard, End):
                return


class Reply:
    """The response to a request that asks for a text; an application of ASGI.

    Parameters
    ----------
    hearing : Hearing
    form : Form
    stream : bool
        Whether the text is sent in pieces, as it comes.
    cancel : callable
        Called once nobody wants the text any more, also after its end.
    """

    def __init__(
        self, hearing: Hearing, form: Form, stream: bool, cancel: Callable[[], None]
    ) -> None:
        self._hearing, self._form, self._stream = hearing, form, stream
        self._cancel = cancel

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond, until all is said or the client is gone."""
        tell = self._tell_in_pieces(send) if self._stream else self._tell(scope, receive, send)
        telling = asyncio.ensure_future(tell)
        leaving = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait((telling, leaving), return_when=asyncio.FIRST_COMPLETED)
            if telling.done():
                telling.result()
        finally:
            self._cancel()
            telling.cancel()
            leaving.cancel()

    async def _tell(self, scope: Scope, receive: Receive, send: Send) -> None:
        heard = [each async for each in self._hearing.all()]
        end, pieces = heard[-1], [each for each in heard if isinstance(each, Piece)]
        assert isinstance(end, End)
        if end.error is not None:
            response = JSONResponse(error_body(end.error, "server_error"), 500)
        else:
            response = JSONResponse(self._form.whole(pieces, end))
        await response(scope, receive, send)

    async def _tell_in_pieces(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
        for chunk in self._form.first():
            await _send(send, event(chunk))
        async for heard in self._hearing.all():
            if isinstance(heard, Piece):
                await _send(send, event(self._form.piece(heard)))
                continue
            if heard.error is not None:
                await _send(send, event(error_body(heard.error, "server_error")), last=True)
                return
            chunks = [event(chunk) for chunk in self._form.last(heard)]
            await _send(send, b"".join([*chunks, event("[DONE]")]), last=True)


async def _send(send: Send, body: bytes, last: bool = False) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": not last})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
