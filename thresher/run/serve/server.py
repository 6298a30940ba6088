"""The process that serves: its port, its signals and its end."""

from __future__ import annotations

__all__ = ["bound", "serve"]

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import uvicorn

from ...core.errors import DataError, OptionError
from ..engine.engine import Engine
from .routes import application
from .scheduler import Scheduler

#: Seconds in which clients may read what is left of their answers once the server is to end.
_PATIENCE = 5.0
#: Connections that wait to be accepted, beyond which the system refuses them.
_BACKLOG = 1024


@contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """Hold a port at which nobody is heard yet.

    Parameters
    ----------
    host : str
    port : int
        0 for one that is free.

    Raises
    ------
    OptionError
        If it cannot be had.
    """
    with _naming_the_port(host, port):
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        held = socket.socket(family, kind, protocol)
    with held:
        with _naming_the_port(host, port):
            # Or the port would stay taken for minutes after a server has ended.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(address)
        yield held


def serve(
    engine: Engine,
    name: str,
    held: socket.socket,
    slots: int,
    queue: int,
    api_key: str | None = None,
    log_level: str = "warning",
    ready: Callable[[str], None] = print,
) -> None:
    """Answer requests until the process is told to stop, by SIGTERM or Ctrl-C.

    Answers under way are then finished, and no new ones are begun.

    Parameters
    ----------
    engine : Engine
    name : str
        Of the model.
    held : socket
        See :func:`bound`.
    slots, queue : int
        See :class:`~thresher.run.serve.scheduler.Scheduler`.
    api_key : str, optional
        Asked for everywhere but at ``/health``.
    log_level : str, default "warning"
        Of uvicorn; with "info" it tells of every request.
    ready : callable
        Takes the server's address once it is heard at.

    Raises
    ------
    DataError
        If the model has no tokenizer.
    OptionError
        If another process has taken the port meanwhile.
    """
    if engine.tokenizer is None:
        raise DataError("the model has no tokenizer, so it can be sent no text; add one's files")
    engine.tokenizer("a")  # its settings change in the first call, and must not among threads
    scheduler = Scheduler(engine.compiled, slots, queue)
    try:
        config = uvicorn.Config(
            application(engine, name, scheduler, api_key),
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_level=log_level,
            access_log=log_level == "info",
            server_header=False,
        )
        with _naming_the_port(*held.getsockname()[:2]):
            held.listen(_BACKLOG)
        server = uvicorn.Server(config)
        with _stopping(server):
            ready(_address(held))
            asyncio.run(_served(server, held, scheduler))
    finally:
        scheduler.close()


async def _served(server: uvicorn.Server, held: socket.socket, scheduler: Scheduler) -> None:
    serving = asyncio.create_task(server.serve([held]))
    since_idle = 0.0
    while not serving.done() and since_idle < _PATIENCE:
        await asyncio.wait([serving], timeout=0.1)
        idle = server.should_exit and not scheduler.active and not scheduler.waiting
        since_idle = since_idle + 0.1 if idle else 0.0
    # A client that reads no more, or never sends the rest of its request, must not keep it alive;
    # uvicorn would log each that is cut off as a failure of the application.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    serving.cancel()
    with suppress(asyncio.CancelledError):
        await serving


@contextmanager
def _stopping(server: uvicorn.Server) -> Iterator[None]:
    """Have the signals stop the server, and not end the process with an error afterwards.

    uvicorn handles them while it runs, and raises them again once it has ended.
    """

    def stop(number: int, frame: object) -> None:
        server.should_exit = True

    before = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def _naming_the_port(host: str, port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OptionError(
            f"port {port} of {host} cannot be had: {error.strerror or error}; choose another "
            "--port or --host"
        ) from error


def _address(held: socket.socket) -> str:
    host, port = held.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
