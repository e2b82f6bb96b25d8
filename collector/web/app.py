"""The web application on loopback: routes, languages, headers."""

from collections.abc import Callable
from pathlib import Path

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from agent.language import Language, say, speaking
from collector.health import Snapshot
from collector.web.views import View, agents_view, criterion_view, node_view, readiness_view, tree_view

FOLDER = Path(__file__).parent

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

Latest = Callable[[], Snapshot | None]


def create_app(latest: Latest) -> Starlette:
    """The application; `latest` gives the newest snapshot, None while there is none."""
    pages = _Pages(latest)
    routes = [
        Route("/", pages.readiness),
        Route("/tree", pages.tree),
        Route("/node/{name}", pages.node),
        Route("/criterion/{name}", pages.criterion),
        Route("/agents", pages.agents),
        Route("/api/scorecard", pages.scorecard),
        Mount("/static", StaticFiles(directory=FOLDER / "static")),
    ]
    # a page on loopback must not answer to a foreign name that a malicious site pointed at 127.0.0.1
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    return Starlette(routes=routes, middleware=[hosts], exception_handlers={404: pages.missing})


class _Pages:
    def __init__(self, latest: Latest) -> None:
        self._latest = latest
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

    async def node(self, request: Request) -> Response:
        return self._show(request, lambda snapshot: node_view(snapshot, request.path_params["name"]))

    async def criterion(self, request: Request) -> Response:
        return self._show(request, lambda snapshot: criterion_view(snapshot, request.path_params["name"]))

    async def missing(self, request: Request, error: Exception) -> Response:
        return self._render(request, "missing.html", None, {}, 404)

    async def scorecard(self, request: Request) -> Response:
        """The scorecard of the page as JSON, the same document as `score --format json`."""
        snapshot = self._latest()
        if snapshot is None:
            return Response(b'{"error": "no figures yet"}', 503, HEADERS, "application/json")
        body = msgspec.json.format(msgspec.json.encode(snapshot.scorecard), indent=2)
        return Response(body, 200, HEADERS, "application/json")

    def _show(self, request: Request, make: Callable[[Snapshot], View | None]) -> Response:
        snapshot = self._latest()
        if snapshot is None:
            return self._render(request, "waiting.html", None, {})
        with speaking(find_language(request)):
            view = make(snapshot)
        if view is None:
            return self._render(request, "missing.html", snapshot, {}, 404)
        return self._render(request, view.template, snapshot, view.values)

    def _render(
        self, request: Request, template: str, snapshot: Snapshot | None, values: dict[str, object], status: int = 200
    ) -> Response:
        language = find_language(request)
        with speaking(language):
            body = self._templates.get_template(template).render(
                **values, snapshot=snapshot, say=say, language=language, path=request.url.path
            )
        response = HTMLResponse(body, status, HEADERS)
        if request.query_params.get("lang") in ("zh", "en"):
            response.set_cookie("lang", language, max_age=31_536_000, samesite="strict", httponly=True)
        return response


def find_language(request: Request) -> Language:
    """What the reader chose on the page; Chinese until then."""
    wish = request.query_params.get("lang") or request.cookies.get("lang")
    return "en" if wish == "en" else "zh"
