"""The route behind the picture in Edit Expression. The page sends JSON and gets a JPEG. Needs a running server."""

from __future__ import annotations

import concurrent.futures

from server import PromptServer, web

from .editor import DrawRequest, UnknownHead, draw

ROUTE = "/expportrait/editor"
LARGEST_REQUEST = 4096  # bytes
# One for what moves, one for what has come to rest and takes longer.
_workers = concurrent.futures.ThreadPoolExecutor(2, "expportrait-editor")


def add_route() -> None:
    """Lets the running server answer the editor."""
    PromptServer.instance.routes.post(ROUTE)(answer)


async def answer(request: web.Request) -> web.Response:
    """POST of a DrawRequest: a JPEG, or {"error": one sentence} with a status of 4xx."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        return _refusal(403, "the editor draws for ComfyUI's own page only; open it there")
    if request.content_type != "application/json":
        return _refusal(415, f"the request is of type {request.content_type}; send application/json")
    if request.content_length is None or request.content_length > LARGEST_REQUEST:
        return _refusal(413, f"the request is too long or does not tell its length; send at most {LARGEST_REQUEST} bytes")
    try:
        asked = DrawRequest.parse(await request.read())
        picture = await PromptServer.instance.loop.run_in_executor(_workers, draw, asked)
    except UnknownHead as error:
        return _refusal(404, str(error))
    except ValueError as error:
        return _refusal(400, str(error))
    return web.Response(body=picture, content_type="image/jpeg", headers={"Cache-Control": "no-store"})


def _refusal(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)
