"""How much a request may bring: what is sent to the page is read no further than that."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

from gancli.serve.origin import App, Receive, Scope, Send


class Limited:
    """Answers 413 to a request with a body of more than `most` bytes, whether it says so or not."""

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
        elif self._said(scope) > self.most:
            await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
        else:
            await self.app(scope, counted, send)

    def _said(self, scope: Scope) -> int:
        """The largest length that the headers say; 0 where they say none."""
        said = [value for name, value in scope.get("headers") or () if name.lower() == b"content-length"]
        return max((int(value) if value.isdigit() else self.most + 1 for value in said), default=0)
