"""The application: all routes behind the guard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from hbi_infer.serve import (
    embeddings,
    index_routes,
    library_routes,
    media_routes,
    page_routes,
    search_routes,
    task_routes,
)
from hbi_infer.serve.guard import Guard
from hbi_infer.serve.library import Library
from hbi_infer.serve.mcp import McpServer
from hbi_infer.serve.metrics import Measured
from hbi_infer.serve.problems import handlers
from hbi_infer.serve.service import Service
from hbi_infer.serve.settings import ServeOptions


def routes() -> list[Route]:
    """Returns all routes but that of the tools, which needs a service."""
    return [
        Route("/", page_routes.index),
        Route("/page/{name}", page_routes.page_file),
        Route("/login", page_routes.login_form),
        Route("/login", page_routes.login, methods=["POST"]),
        Route("/logout", page_routes.logout, methods=["POST"]),
        Route("/health/live", page_routes.live),
        Route("/health/ready", page_routes.ready),
        Route("/metrics", page_routes.metrics),
        Route("/v1/openapi.json", page_routes.openapi),
        Route("/v1/embeddings", embeddings.embeddings, methods=["POST"]),
        Route("/v1/collections", library_routes.collections),
        Route("/v1/videos", library_routes.videos),
        Route("/v1/videos/{id}", library_routes.video),
        Route("/v1/videos/{id}/stream", media_routes.stream),
        Route("/v1/index", index_routes.state),
        Route("/v1/index", index_routes.start_or_stop, methods=["POST"]),
        Route("/v1/index/events", index_routes.events),
        Route("/v1/failures", library_routes.failures),
        Route("/v1/clips/{id}/thumbnail", media_routes.thumbnail),
        Route("/v1/clips/{id}/moment", media_routes.moment),
        Route("/v1/answer", task_routes.answer, methods=["POST"]),
        Route("/v1/caption", task_routes.caption, methods=["POST"]),
        Route("/v1/explain", task_routes.explain, methods=["POST"]),
        Route("/v1/search", search_routes.search, methods=["POST"]),
    ]


def build_app(options: ServeOptions) -> Starlette:
    """Builds the application; models are loaded and indexes opened now.

    Args:
        options: Options of the service.

    Raises:
        InputError: A folder or a model cannot be used.
        HBIError: A model or an index cannot be used.
    """
    service = Service(options, Library.open(options))
    mcp = McpServer(service)
    served = [*routes(), Route("/mcp", mcp, methods=["POST"])]

    @asynccontextmanager
    async def running(_app: Starlette) -> AsyncIterator[None]:
        async with service.running(), mcp.running():
            yield

    app = Starlette(
        routes=served,
        middleware=[
            Middleware(Measured, metrics=service.metrics, routes=served),
            Middleware(Guard, options=options, sessions=service.sessions),
        ],
        exception_handlers=handlers(service.library.shown),
        lifespan=running,
    )
    app.router.redirect_slashes = False
    app.state.service = service
    return app
