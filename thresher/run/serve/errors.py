"""What a client is told that cannot be answered, in the form of OpenAI's interface."""

from __future__ import annotations

__all__ = ["HANDLERS", "RefusedError", "refused_for"]

from collections.abc import Callable, Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from .answers import error_body
from .bodies import Problem


class RefusedError(Exception):
    """A request that is not answered.

    Parameters
    ----------
    status : int
        Of HTTP.
    said : str
        What is wrong, and what to do.
    field : str, optional
        Of the body, where it is to blame.
    code : str, optional
        By which clients tell some errors apart.
    headers : dict, optional
        Of the response.
    """

    def __init__(
        self,
        status: int,
        said: str,
        field: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(said)
        self.status, self.said, self.field = status, said, field
        self.code, self.headers = code, headers

    def response(self) -> JSONResponse:
        """Return what the client is told."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        body = error_body(self.said, kind, self.field, self.code)
        return JSONResponse(body, self.status, self.headers)


def refused_for(problems: Sequence[Problem]) -> RefusedError:
    """Return the error that names everything that is wrong with a body."""
    said = "; ".join(f"{problem.field} {problem.said}" for problem in problems)
    return RefusedError(400, said, problems[0].field)


async def _refused(request: Request, error: Any) -> JSONResponse:
    return RefusedError.response(error)


async def _not_routed(request: Request, error: Any) -> JSONResponse:
    said = f"{request.method} {request.url.path}: {error.detail}"
    return RefusedError(error.status_code, said, headers=error.headers).response()


async def _left(request: Request, error: Exception) -> JSONResponse:
    return RefusedError(400, "the request is not complete").response()  # which nobody reads


async def _failed(request: Request, error: Exception) -> JSONResponse:
    return RefusedError(500, "the server failed; its log says where").response()


#: By class of error.
HANDLERS: dict[Any, Callable[..., Any]] = {
    RefusedError: _refused,
    HTTPException: _not_routed,
    ClientDisconnect: _left,
    Exception: _failed,
}
