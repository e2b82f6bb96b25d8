"""What a request asks for besides its path, and the answer to a program that gets nothing."""

from collections.abc import Mapping

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from agent.language import Language, say, speaking


def find_language(request: Request) -> Language:
    """What the reader chose on the page; Chinese until then."""
    wish = request.query_params.get("lang") or request.cookies.get("lang")
    return "en" if wish == "en" else "zh"


def is_choice(query: Mapping[str, str]) -> bool:
    """Whether the reader chose a language; a page that fetches itself again in its own language chooses nothing."""
    return query.get("lang") in ("zh", "en") and "again" not in query


def refuse_program(request: Request, status: int, zh: str, en: str, headers: Mapping[str, str]) -> Response:
    """`{"error": …}` in the language that was asked for."""
    with speaking(find_language(request)):
        body = msgspec.json.encode({"error": say(zh, en)})
    return Response(body, status, headers, "application/json")
