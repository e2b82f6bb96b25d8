"""The way in: what asks for the password, and what stands before every other route when there is one."""

import asyncio
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs, quote

from starlette.middleware.base import RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from collector.web.asked import refuse_program
from collector.web.guard import SESSION_SECONDS, WAIT_SECONDS, Guard
from collector.web.spans import find_span
from collector.web.view import View

MOST_FORM_BYTES = 8192

_BEARER = 'Bearer realm="infravitals"'
_COOKIE = 'Cookie realm="infravitals", form-action="/login"'
"""What a 401 has to name (RFC 9110 15.5.2): how to be let in. No browser knows the second, so none asks for a password of its own."""

Render = Callable[[Request, View, int], Response]


class Login:
    """Routes `/login` and `/logout`, and the guard of all others. render: draws the form. headers: of every answer."""

    def __init__(self, guard: Guard, render: Render, headers: Mapping[str, str]) -> None:
        self._guard, self._render, self._headers = guard, render, dict(headers)
        self._one_at_a_time = asyncio.Semaphore(1)  # a try costs 16 MiB

    async def stand_before(self, request: Request, follow: RequestResponseEndpoint) -> Response:
        """Let in who has a session, send a reader to the form, refuse a program."""
        path = request.scope["path"]  # what the router sees; `url` is also made of the Host that the client wrote
        if (
            path == "/login"
            or path.startswith("/static/")
            or self._guard.knows(request.cookies.get(self._guard.cookie))
        ):
            return await follow(request)
        if path == "/metrics" and self._guard.may_scrape(request.headers.get("authorization")):
            return await follow(request)
        if path == "/metrics" or path.startswith("/api/"):
            challenge = {"WWW-Authenticate": _BEARER if path == "/metrics" else _COOKIE}
            return refuse_program(request, 401, "请先登录", "log in first", self._headers | challenge)
        span = find_span(request.query_params.get("span"))
        return RedirectResponse(f"/login?next={quote(path + span.query)}", 303, self._headers)

    async def show(self, request: Request) -> Response:
        """The form."""
        return self._form(request, request.query_params.get("next", "/"), "", 200)

    async def take(self, request: Request) -> Response:
        """A password that was sent."""
        address = request.client.host if request.client else ""
        fields = await _read_form(request)
        target = fields.get("next", "/")
        async with self._one_at_a_time:
            if not self._guard.may_try(address):
                answer = self._form(request, target, "wait", 429)
                answer.headers["Retry-After"] = str(int(WAIT_SECONDS))
                return answer
            if not await asyncio.to_thread(self._guard.is_right, fields.get("password", "")):
                self._guard.note_failure(address)
                return self._form(request, target, "wrong", 403)
            session = self._guard.begin(address)
        answer = RedirectResponse(_inside(target), 303, self._headers)
        answer.set_cookie(
            self._guard.cookie,
            session,
            max_age=SESSION_SECONDS,
            httponly=True,
            samesite="strict",
            secure=self._guard.is_secure,
        )
        return answer

    async def leave(self, request: Request) -> Response:
        """End the session."""
        self._guard.end(request.cookies.get(self._guard.cookie))
        answer = RedirectResponse("/login", 303, self._headers)
        answer.delete_cookie(self._guard.cookie, httponly=True, samesite="strict", secure=self._guard.is_secure)
        return answer

    def _form(self, request: Request, target: str, trouble: str, status: int) -> Response:
        return self._render(request, View("login.html", {"trouble": trouble, "target": _inside(target)}), status)


async def _read_form(request: Request) -> dict[str, str]:
    """The fields of a form, the first of each name; nothing of one that is too long or no text."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_FORM_BYTES:
            return {}
    try:
        read = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=8)
    except ValueError:
        return {}
    return {key: values[0] for key, values in read.items()}


def _inside(path: str) -> str:
    """A path of this page; never another host's."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() else "/"
