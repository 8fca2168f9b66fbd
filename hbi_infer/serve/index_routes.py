"""Routes that start, watch and stop an update of an index."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from hbi_infer.serve.bodies import query_fields, read_json
from hbi_infer.serve.fields import Fields
from hbi_infer.serve.indexing import Indexer
from hbi_infer.serve.library_routes import named_collection
from hbi_infer.serve.problems import busy
from hbi_infer.serve.service import Service, service_of

LOOK_SECONDS = 0.2
QUIET_SECONDS = 15.0
"""Time after which a line is sent though nothing has changed: a connection that is dead is noticed by it."""
MOST_LISTENERS = 64


async def start_or_stop(request: Request) -> Response:
    """Starts or stops an update."""
    service = service_of(request)
    fields = Fields(await read_json(request, service.options.limits), ("collection", "action"))
    indexer = service.indexers[named_collection(service, fields).id]
    if fields.choice("action", "", ("start", "stop")) == "start":
        indexer.start()
    else:
        indexer.stop()
    return JSONResponse(indexer.state.to_json(), 202)


async def state(request: Request) -> Response:
    """Says how an update goes on."""
    service = service_of(request)
    collection = named_collection(service, query_fields(request, ("collection",)))
    return JSONResponse(service.indexers[collection.id].state.to_json())


async def events(request: Request) -> Response:
    """Tells of an update as it goes on (server-sent events)."""
    service = service_of(request)
    collection = named_collection(service, query_fields(request, ("collection",)))
    if service.num_listeners >= MOST_LISTENERS:
        raise busy("listeners", 10)
    events_of = _events(service, service.indexers[collection.id])
    return StreamingResponse(events_of, media_type="text/event-stream")


async def _events(service: Service, indexer: Indexer) -> AsyncIterator[str]:
    """Yields an event for each change, the first at once, until the service stops or the client goes."""
    told, quiet = None, 0.0
    service.num_listeners += 1
    try:
        while service.is_ready:
            if (now := indexer.state) != told:
                told, quiet = now, 0.0
                yield f"event: progress\ndata: {json.dumps(now.to_json())}\n\n"
            elif quiet >= QUIET_SECONDS:
                quiet = 0.0
                yield ": nothing new\n\n"
            await asyncio.sleep(LOOK_SECONDS)
            quiet += LOOK_SECONDS
    finally:
        service.num_listeners -= 1
