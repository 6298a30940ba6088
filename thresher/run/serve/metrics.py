"""Counts and times for Prometheus."""

from __future__ import annotations

__all__ = ["Metrics"]

import time

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .scheduler import End, Scheduler

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """What ``/metrics`` tells.

    Parameters
    ----------
    scheduler : Scheduler
    paths : collection of str
        Those that requests are counted by; others are counted together.
    """

    def __init__(self, scheduler: Scheduler, paths: set[str]) -> None:
        registry = self._registry = CollectorRegistry()
        self._paths = paths
        self._requests = Counter(
            "thresher_requests",
            "Requests by path and status",
            ["path", "status"],
            registry=registry,
        )
        self._prompt = Counter("thresher_prompt_tokens", "Tokens of prompts", registry=registry)
        self._cached = Counter(
            "thresher_cached_tokens",
            "Tokens of prompts that were not computed again",
            registry=registry,
        )
        self._new = Counter("thresher_new_tokens", "Tokens of answers", registry=registry)
        self._seconds = Histogram(
            "thresher_request_seconds",
            "From a request to the end of its response",
            ["path"],
            buckets=_SECONDS,
            registry=registry,
        )
        active = Gauge("thresher_texts_active", "Texts under way", registry=registry)
        active.set_function(lambda: scheduler.active)
        waiting = Gauge(
            "thresher_texts_waiting", "Texts that wait for their turn", registry=registry
        )
        waiting.set_function(lambda: scheduler.waiting)

    def count_tokens(self, end: End) -> None:
        """Count the tokens of a text that has ended."""
        self._prompt.inc(end.prompt)
        self._cached.inc(end.cached)
        self._new.inc(end.new)

    def response(self) -> Response:
        """Return all of them as text."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    def counting(self, app: ASGIApp) -> ASGIApp:
        """Return an application whose requests are counted."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            statuses: list[int] = []

            async def sent(message: Message) -> None:
                if message["type"] == "http.response.start":
                    statuses.append(message["status"])
                await send(message)

            path = scope["path"] if scope["path"] in self._paths else "other"
            start = time.perf_counter()
            try:
                await app(scope, receive, sent)
            finally:
                # 499, as elsewhere, where the client went away before.
                self._requests.labels(path, statuses[0] if statuses else 499).inc()
                self._seconds.labels(path).observe(time.perf_counter() - start)

        return counted
