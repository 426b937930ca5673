"""The application: routes, guard, errors in one shape, and what OpenAPI says of it all."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from mdplatform import __version__
from mdplatform.errors import PlatformError
from mdplatform.gateway import examples, page
from mdplatform.gateway.access import Access
from mdplatform.gateway.guard import Guard
from mdplatform.gateway.parts import Parts
from mdplatform.gateway.problems import Refusal, respond, unforeseen, unknown_field
from mdplatform.gateway.routes import answers, catalog, features, requests
from mdplatform.gateway.switchboard import Switchboard
from mdplatform.lake import Lake
from mdplatform.messaging.transport import Asker
from mdplatform.serving.async_reader import AsyncReader
from mdplatform.settings import Settings

_log = logging.getLogger("mdplatform.gateway")

DESCRIPTION = """
Market data for strategies in any language: indicators, profiles, correlations, sentiment, macro series and formulas,
computed point in time.

- **Ask and be answered**: `POST /v1/requests` takes a request and answers at once with its id; each request gets
  exactly one final answer, which is waited for (`?wait=2s`), looked up, or comes over the WebSocket `/v1/answers`.
- **Read**: `GET /v1/features/{symbol}/{feature}` gives the newest values, or those of a range as they were known at an
  instant.
- **Look up**: `GET /v1/catalog` lists what can be asked for.

Show an API key (`mdplatform keys create`) as `Authorization: Bearer KEY` or `X-API-Key: KEY`. Times are ISO 8601 in
UTC; what has no value is null. Errors are `application/problem+json` and say the field, the value and the remedy.
"""
_TAGS = [
    {"name": "Requests", "description": "Ask for data, wait for it, look it up, cancel. Scope `request`."},
    {"name": "Features", "description": "Read values as they are. Scope `read`."},
    {"name": "Catalogue", "description": "What can be asked for, and of which symbols. Scope `read`."},
    {"name": "Health", "description": "For whoever watches over the gateway."},
]


def create_app(settings: Settings, open_asker: Callable[[], Asker] | None = None) -> FastAPI:
    """Give the application. Raises `InvalidSetting` where it would be open to others without keys.

    `open_asker` is called in the loop that serves; by default it is the transport that the settings name.
    """
    access = Access(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if open_asker is None:
            from mdplatform.messaging.registry import asker

            opened = asker(settings)
        else:
            opened = open_asker()
        lake = Lake(settings.lake_dir)
        switchboard = Switchboard(opened)
        async with AsyncReader(settings, lake=lake) as reader:
            app.state.parts = Parts(settings, access, switchboard, reader, lake)
            switchboard.start()
            try:
                yield
            finally:
                await switchboard.close()

    app = FastAPI(
        title="mdplatform",
        version=__version__,
        description=DESCRIPTION,
        openapi_tags=_TAGS,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    for each in (requests, features, catalog, answers):
        app.include_router(each.router)
    app.add_exception_handler(PlatformError, _platform_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unforeseen)
    app.add_middleware(Guard, access=access)
    if access.wants_keys:  # a key is never sent by a browser on its own, so any site may ask that was given one
        app.add_middleware(
            CORSMiddleware,
            allow_origins=["*"],
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "X-API-Key", "Content-Type", "Prefer"],
            expose_headers=["Location", "Retry-After", "Preference-Applied"],
        )
    app.openapi = lambda: _schema(app)  # type: ignore[method-assign]

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page.render(app.openapi()))

    return app


def _schema(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, tags=_TAGS
        )
        components = schema.setdefault("components", {})
        components["schemas"] = {
            "DataRequest": examples.REQUEST_SCHEMA,
            "Problem": {
                "type": "object",
                "description": "What is wrong (RFC 9457).",
                "required": ["type", "title", "status", "detail"],
                "properties": {
                    "type": {"type": "string", "description": "`urn:mdplatform:` and the kind of error."},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string", "description": "One sentence for a person."},
                    "field": {"type": "string", "description": "Such as `indicators[0].parameters.period`."},
                    "value": {"description": "What was refused."},
                    "remedy": {"type": "string", "description": "What is allowed, or can be done."},
                    "retry_after_seconds": {"type": "number"},
                },
            },
        }
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer", "description": "`mdplatform keys create` makes a key."},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        schema["security"] = [{"bearer": []}, {"header": []}]
        for operations in schema["paths"].values():
            for operation in operations.values():
                if "422" in operation["responses"]:  # which FastAPI tells in a shape of its own
                    operation["responses"]["422"] = examples.problems(422)[422]
        app.openapi_schema = schema
    return app.openapi_schema


async def _platform_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, PlatformError)
    return respond(error)


async def _invalid(request: Request, error: Exception) -> Response:
    """Tell of the first of FastAPI's own validation errors, in the shape of all others."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = [str(each) for each in first["loc"][1:]] or [str(each) for each in first["loc"]]
    name = ".".join(place)
    if first["type"] == "extra_forbidden":
        return respond(unknown_field(name, _query_names(request)))
    return respond(Refusal(422, str(first["msg"]), kind="invalid-parameter", field=name, value=first.get("input")))


def _query_names(request: Request) -> set[str]:
    """Give the names of the query's parameters of the operation that was asked for."""
    dependant = getattr(request.scope.get("route"), "dependant", None)
    models = [each.field_info.annotation for each in getattr(dependant, "query_params", ())]
    return {name for model in models for name in getattr(model, "model_fields", ())}


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    remedy = "GET /docs lists the operations" if error.status_code in (404, 405) else ""
    return respond(
        Refusal(error.status_code, str(error.detail), field="", remedy=remedy, headers=dict(error.headers or {}))
    )


async def _unforeseen(request: Request, error: Exception) -> Response:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return respond(unforeseen())
