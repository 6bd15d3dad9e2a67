"""The HTTP interface through which `castline gateway measure` reads and stores the latency of a line's camera.

| request | response |
| --- | --- |
| `GET /lines/{line}/latency` | 200, the latency and the times of the last parts and pictures |
| `PUT /lines/{line}/latency`, `{"latency_s", "spacing_s"}` | 200, the same, after the latency was stored |

Each request needs the header `Authorization: Bearer` with the token of the setting gateway.token.

Errors: 400 (malformed body), 401 (wrong token), 404 (unknown line), 408 (too slow), 413 (too large),
429 (too many wrong tokens) or 507 (the latency was not stored).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from functools import partial

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from agents.gateway.intake import Intake
from agents.gateway.latency import HIGHEST_LATENCY_S, LOWEST_LATENCY_S
from agents.gateway.request_threads import REQUEST_THREADS
from agents.gateway.token_check import TokenCheck
from agents.gateway.upload_request import RequestRefusedError, make_refusal, read_small_body


class MeasuredLatencyBody(BaseModel):
    """The body of `PUT /lines/{line}/latency`, in seconds.

    `latency_s` is a measured latency, and `spacing_s` the usual time between two parts during the measurement.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    latency_s: float = Field(ge=LOWEST_LATENCY_S, le=HIGHEST_LATENCY_S)
    spacing_s: float = Field(gt=0)


# A function that answers a request for the latency of a line, from the name and the intake of the line.
_Answer = Callable[[web.Request, str, Intake], Awaitable[web.Response]]


def add_latency_routes(app: web.Application, intakes: Mapping[str, Intake], token: SecretStr, tokens: TokenCheck) -> None:
    """Adds the routes for the latency to the application of `build_app`. `intakes` holds the lines whose pictures are matched by time."""

    def make_handler(
        answer: Callable[[web.Request, str, Intake], Awaitable[web.Response]],
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            line = request.match_info["line"]
            try:
                tokens.expect_token(request, token, "gateway.token", line if line in intakes else "")
            except RequestRefusedError as error:
                return make_refusal(error)
            if line not in intakes:
                return _make_error(404, f"expected a line whose pictures and parts are matched by time, found {line[:80]!r}")
            return await answer(request, line, intakes[line])

        return handle

    app.router.add_get("/lines/{line}/latency", make_handler(_show_latency))
    app.router.add_put("/lines/{line}/latency", make_handler(_store_latency))


async def _show_latency(request: web.Request, line: str, intake: Intake) -> web.Response:
    return web.json_response(asdict(await request.app[REQUEST_THREADS].call(line, intake.read_latency)))


async def _store_latency(request: web.Request, line: str, intake: Intake) -> web.Response:
    try:
        body = MeasuredLatencyBody.model_validate_json(await read_small_body(request))
    except RequestRefusedError as error:
        return make_refusal(error)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        return _make_error(400, f"{'.'.join(str(step) for step in problem['loc']) or 'body'}: {problem['msg']}")
    try:
        await request.app[REQUEST_THREADS].call(line, partial(intake.store_latency, body.latency_s, body.spacing_s))
    except OSError as error:
        return _make_error(507, f"the latency cannot be stored: {error}")
    return await _show_latency(request, line, intake)


def _make_error(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)
