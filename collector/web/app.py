"""The web application: routes, languages, headers, and the password before them where there is one."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from agent.language import say, speaking
from collector import simulated
from collector.snapshot import Snapshot
from collector.web.agents_view import agents_view
from collector.web.asked import find_language, is_choice, refuse_program
from collector.web.attestations_view import attestations_view
from collector.web.continuity_view import continuity_view
from collector.web.evidence_view import criterion_view
from collector.web.guard import Guard
from collector.web.history_view import history_view
from collector.web.ledger_view import ledger_view
from collector.web.login import Login
from collector.web.network_view import network_view
from collector.web.node_view import node_view
from collector.web.spans import Span, find_span
from collector.web.start_view import start_view
from collector.web.subject_view import subject_view
from collector.web.view import NO_FRAME, View, frame_of
from collector.web.views import missing_view, readiness_view, tree_view

FOLDER = Path(__file__).parent

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' text format."""

YEAR_SECONDS = 31_536_000

Latest = Callable[[], Snapshot | None]


def create_app(
    latest: Latest,
    clock: Callable[[], float] = time.time,
    metrics: Callable[[], bytes] = bytes,
    guard: Guard | None = None,
    names: Sequence[str] = (),
) -> Starlette:
    """The application; `latest` gives the newest snapshot, None while there is none. clock: seconds since the epoch.

    metrics: what Prometheus is given. guard: who is let in, None for everybody who can reach it. names: hosts that it
    answers to besides the loopback; `*` for any, where a proxy has looked already.
    """
    pages = _Pages(latest, clock, can_leave=guard is not None)

    async def scrape(request: Request) -> Response:
        return Response(metrics(), 200, HEADERS, METRICS_TYPE)

    routes = [
        Route("/", pages.readiness),
        Route("/tree", pages.tree),
        Route("/node/{name}", pages.node),
        Route("/criterion/{name}", pages.criterion),
        Route("/subject/{name:path}", pages.subject),
        Route("/attestations", pages.attestations),
        Route("/history", pages.history),
        Route("/failover", pages.continuity),
        Route("/network", pages.network),
        Route("/agents", pages.agents),
        Route("/ledger", pages.ledger),
        Route("/start", pages.start),
        Route("/api/scorecard", pages.scorecard),
        Route("/metrics", scrape),
        Mount("/static", _Static(directory=FOLDER / "static")),
    ]
    # a page must not answer to a foreign name that a malicious site pointed at 127.0.0.1
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", *names], www_redirect=False)
    middleware = [hosts]
    if guard is not None:
        login = Login(guard, pages.plain, HEADERS)
        routes += [
            Route("/login", login.show, methods=["GET"]),
            Route("/login", login.take, methods=["POST"]),
            Route("/logout", login.leave, methods=["POST"]),
        ]
        middleware.append(Middleware(BaseHTTPMiddleware, dispatch=login.stand_before))
    return Starlette(routes=routes, middleware=middleware, exception_handlers={404: pages.missing})


class _Static(StaticFiles):
    def file_response(self, *arguments: Any, **options: Any) -> Response:
        response = super().file_response(*arguments, **options)
        # asked for anew every time, or a browser shows the pages of a new version in the old one's dress
        response.headers["Cache-Control"] = "no-cache"
        return response


class _Pages:
    def __init__(self, latest: Latest, clock: Callable[[], float], *, can_leave: bool) -> None:
        self._latest, self._clock, self._can_leave = latest, clock, can_leave
        self._templates = Environment(
            loader=PackageLoader("collector.web"),
            autoescape=select_autoescape(default=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    async def readiness(self, request: Request) -> Response:
        return self._show(request, readiness_view)

    async def tree(self, request: Request) -> Response:
        return self._show(request, tree_view)

    async def agents(self, request: Request) -> Response:
        return self._show(request, agents_view)

    async def ledger(self, request: Request) -> Response:
        return self._show(request, ledger_view)

    async def network(self, request: Request) -> Response:
        return self._show(request, network_view)

    async def continuity(self, request: Request) -> Response:
        return self._show(request, continuity_view)

    async def attestations(self, request: Request) -> Response:
        return self._show(request, attestations_view)

    async def history(self, request: Request) -> Response:
        return self._show(request, lambda snapshot: history_view(snapshot, _span_of(request)))

    async def start(self, request: Request) -> Response:
        return self._show(request, start_view)

    async def node(self, request: Request) -> Response:
        name = request.path_params["name"]
        return self._show(request, lambda snapshot: node_view(snapshot, name, _span_of(request)))

    async def criterion(self, request: Request) -> Response:
        name = request.path_params["name"]
        return self._show(request, lambda snapshot: criterion_view(snapshot, name, _span_of(request)))

    async def subject(self, request: Request) -> Response:
        return self._show(request, lambda snapshot: subject_view(snapshot, request.path_params["name"]))

    async def missing(self, request: Request, error: Exception) -> Response:
        if request.scope["path"].startswith("/static/"):  # open to everybody: no figure, no name of the hospital
            return Response(b"", 404, HEADERS)
        return self._show_missing(request, self._latest())

    async def scorecard(self, request: Request) -> Response:
        """The scorecard of the page as JSON, the same document as `score --format json`."""
        snapshot = self._latest()
        if snapshot is None:
            return refuse_program(request, 503, "还没有数字，请稍候", "no figures yet", HEADERS)
        body = msgspec.json.format(simulated.mark(msgspec.json.encode(snapshot.scorecard)), indent=2)
        return Response(body, 200, HEADERS, "application/json")

    def _show(self, request: Request, make: Callable[[Snapshot], View | None]) -> Response:
        snapshot = self._latest()
        if snapshot is None:
            return self._render(request, None, View("waiting.html", {}), 200)
        with speaking(find_language(request)):
            view = make(snapshot)
        return self._show_missing(request, snapshot) if view is None else self._render(request, snapshot, view, 200)

    def _show_missing(self, request: Request, snapshot: Snapshot | None) -> Response:
        return self._render(request, snapshot, missing_view(snapshot, request.scope["path"]), 404)

    def plain(self, request: Request, view: View, status: int) -> Response:
        """A page that shows nothing of the hospital, nor where else to go."""
        return self._render(request, None, view, status, is_open=True)

    def _render(
        self, request: Request, snapshot: Snapshot | None, view: View, status: int, *, is_open: bool = False
    ) -> Response:
        language, path = find_language(request), request.url.path
        can_leave = self._can_leave and not is_open
        with speaking(language):
            frame = NO_FRAME if is_open else frame_of(snapshot, path, int(self._clock() * 1000))
            template = self._templates.get_template(view.template)
            told = {"frame": frame, "say": say, "language": language, "can_leave": can_leave}
            body = template.render(**view.values, **told, again=_span_of(request).query)
        response = HTMLResponse(body, status, HEADERS)
        if is_choice(request.query_params):
            response.set_cookie("lang", language, max_age=YEAR_SECONDS, samesite="strict", httponly=True)
        return response


def _span_of(request: Request) -> Span:
    return find_span(request.query_params.get("span"))
