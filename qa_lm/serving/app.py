"""The routes of the server, and what stands before them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ExceptionHandler

from qa_lm.config.enums import AnswerMode
from qa_lm.serving.batching import Batches
from qa_lm.serving.completions import ClientGone, Endpoints, Service
from qa_lm.serving.engine import Engine
from qa_lm.serving.metrics import CLIENT_LEFT, Measured, Metrics
from qa_lm.serving.page import PAGE_FILES, page_files
from qa_lm.serving.protocol.errors import ApiError, JsonResponse, check_name
from qa_lm.serving.security import LOCAL_NAMES, PAGE_POLICY, Bodies, Errors, Hosts, Keys, Limits


@dataclass(frozen=True)
class Settings:
    """How the server behaves."""

    name: str
    """Name of the model."""
    created: int
    """When the model was saved, in seconds since 1970."""
    hosts: tuple[str, ...] = LOCAL_NAMES
    key: str | None = None
    origin: str | None = None
    """The foreign origin that may ask."""
    max_new_tokens: int = 64
    seconds: float = 60.0
    most_waiting: int = 256
    limits: Limits = field(default_factory=Limits)


def create_app(engine: Engine, settings: Settings) -> Starlette:
    """The application for a model."""
    batches = Batches(engine.answer, settings.most_waiting)
    metrics = Metrics(lambda: len(batches.waiting), lambda: batches.batches)
    service = Service(settings.name, engine, batches, metrics, settings.max_new_tokens, settings.seconds)
    routes = _Routes(service, settings).all()
    paths = frozenset(route.path for route in routes)
    cors = Middleware(
        CORSMiddleware,
        allow_origins=[settings.origin or ""],
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "content-type"],
    )
    middleware = [
        Middleware(Measured, metrics=metrics, paths=paths),
        Middleware(Errors),
        Middleware(Hosts, names=settings.hosts, origin=settings.origin),
        *([cors] if settings.origin else []),
        Middleware(Keys, key=settings.key),
        Middleware(Bodies, limits=settings.limits),
    ]

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        worker = asyncio.create_task(batches.run())
        yield
        worker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await worker

    handlers: dict[Any, ExceptionHandler] = {ClientGone: _client_gone, HTTPException: _http_error}
    return Starlette(routes=routes, middleware=middleware, lifespan=lifespan, exception_handlers=handlers)


class _Routes:
    """The routes.

    Args:
        service: what answers.
        settings: what clients can read about it.
    """

    def __init__(self, service: Service, settings: Settings) -> None:
        self.service, self.settings = service, settings
        self.endpoints = Endpoints(service)
        self.files = page_files(settings.name, _conversation(service.engine), settings.key is not None)

    def all(self) -> list[Route]:
        """Each route."""
        return [
            *(Route(path, self.page) for path in PAGE_FILES),
            Route("/health", self.health),
            Route("/metrics", self.metrics),
            Route("/v1/models", self.models),
            Route("/v1/models/{name:path}", self.model),
            Route("/v1/chat/completions", self.endpoints.chat, methods=["POST"]),
            Route("/v1/completions", self.endpoints.completions, methods=["POST"]),
        ]

    async def page(self, request: Request) -> Response:
        """The page, its script and its style."""
        headers = {"content-security-policy": PAGE_POLICY}
        content, kind = self.files[request.url.path]
        return Response(content, media_type=kind, headers=headers)

    async def health(self, _: Request) -> Response:
        """Whether the server answers."""
        return JsonResponse({"status": "ok"})

    async def metrics(self, _: Request) -> Response:
        """The counts."""
        return PlainTextResponse(self.service.metrics.text(), media_type="text/plain; version=0.0.4")

    async def models(self, _: Request) -> Response:
        """The one model."""
        return JsonResponse({"object": "list", "data": [self._entry()]})

    async def model(self, request: Request) -> Response:
        """The model by its name."""
        check_name(request.path_params["name"], self.settings.name)
        return JsonResponse(self._entry())

    def _entry(self) -> dict[str, Any]:
        engine = self.service.engine
        abstention = engine.replies[engine.mode].abstention
        return {
            "id": self.settings.name,
            "object": "model",
            "created": self.settings.created,
            "owned_by": "qa_lm",
            "qa_lm": {
                "mode": engine.mode.value,
                "conversation": _conversation(engine),
                "context": engine.context,
                "max_tokens": self.settings.max_new_tokens,
                "abstains_below": abstention and abstention.threshold,
            },
        }


def _conversation(engine: Engine) -> str:
    """How much of a conversation the model reads."""
    whole = engine.conversations is not None and engine.mode is AnswerMode.free
    return "the whole conversation" if whole else "only the last message of the user"


async def _client_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_LEFT)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return ApiError(error.detail, error.status_code, headers=error.headers).response
