"""A limit on the size of request bodies."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

from gancli.serve.origin import App, Receive, Scope, Send


class Limited:
    """Answers 413 to a request whose body exceeds `most` bytes, by its Content-Length header or while it is read."""

    def __init__(self, app: App, most: int):
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        taken = 0

        async def counted() -> MutableMapping[str, Any]:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body") or b"")
            if taken > self.most:
                raise HTTPException(413)
            return message

        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif self._declared(scope) > self.most:
            await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
        else:
            await self.app(scope, counted, send)

    def _declared(self, scope: Scope) -> int:
        """The largest Content-Length header; 0 if there is none."""
        found = [value for name, value in scope.get("headers") or () if name.lower() == b"content-length"]
        return max((int(value) if value.isdigit() else self.most + 1 for value in found), default=0)
