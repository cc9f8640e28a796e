"""A server written in Python that knows nothing of Wharf: it answers by wasi:http, and keeps its files where it is told."""

import asyncio
import hashlib
import json
import os
import traceback

import poll_loop
from componentize_py_types import Ok
from poll_loop import PollLoop, Sink, Stream
from wit_world import exports
from wit_world.imports import types
from wit_world.imports.types import Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam


async def whole(body):
    stream, parts = Stream(body), []
    while (part := await stream.next()) is not None:
        parts.append(part)
    return b"".join(parts)


def begin(out, status, kind):
    response = OutgoingResponse(Fields.from_list([("content-type", kind.encode())]))
    response.set_status_code(status)
    body = response.body()
    ResponseOutparam.set(out, Ok(response))
    return Sink(body)


async def answer(request, out):
    path, _, query = (request.path_with_query() or "/").partition("?")
    method = type(request.method()).__name__.removeprefix("Method_").upper()
    if path == "/echo":
        # Both ways at once: each part goes back as it comes.
        source, sink = Stream(request.consume()), begin(out, 200, "application/octet-stream")
        while (part := await source.next()) is not None:
            await sink.send(part)
        return sink.close()
    if path == "/sum":
        body = await whole(request.consume())
        found = {"method": method, "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        status, text = 200, json.dumps(found)
    elif path == "/env":
        status, text = 200, json.dumps(dict(os.environ))
    elif path.startswith("/notes/") and method in ("GET", "PUT"):
        name = os.path.join("/data", os.path.basename(path))
        if method == "PUT":
            body = await whole(request.consume())
            with open(name, "wb") as file:
                file.write(body)
            status, text = 201, json.dumps(sorted(os.listdir("/data")))
        elif os.path.exists(name):
            with open(name, encoding="utf-8") as file:
                status, text = 200, json.dumps({"note": file.read(), "of": query})
        else:
            status, text = 404, json.dumps(None)
    elif path == "/fail":
        raise ValueError("as asked")
    else:
        status, text = 404, json.dumps(None)
    sink = begin(out, status, "application/json")
    await sink.send(text.encode())
    sink.close()


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        loop = PollLoop()
        asyncio.set_event_loop(loop)
        loop.run_until_complete(answer(request, response_out))
