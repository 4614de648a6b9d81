"""Rejection of cross-origin requests: only the page itself may send requests to its server.

Another site can make a visitor's browser send requests and open websockets to this machine (the browser then sends that
site's Origin), or resolve its own name to this machine's address (DNS rebinding: the browser then sends that name as
Host). So the Host of a request must be one of this machine's names or an IP address, and its Origin, if any, must be
the same host and port.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
ANSWER = b"this server only answers requests from its own page"


class OwnOrigin:
    """Answers 403 to requests that are not the page's own; websockets are closed before they are accepted.

    local: allow only this machine's loopback names and addresses, with any port (an ssh tunnel may use another).
    Otherwise allow all IP addresses, this machine's names and `named`, the value of `host`.
    """

    def __init__(self, app: App, local: bool, named: str = ""):
        self.app, self.local = app, local
        own = () if local else (named, socket.gethostname(), socket.getfqdn())
        self.names = {name.lower().rstrip(".") for name in ("localhost", *own) if name}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or self.allows(scope.get("headers") or ()):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            head = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(ANSWER))]
            await send({"type": "http.response.start", "status": 403, "headers": head})
            await send({"type": "http.response.body", "body": ANSWER})

    def allows(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether a request with these headers is the page's own."""
        found: dict[bytes, list[str]] = {}
        for name, value in headers:
            found.setdefault(name.lower(), []).append(value.decode("latin-1"))
        hosts, origins = found.get(b"host", []), found.get(b"origin", [])
        if len(hosts) != 1 or len(origins) > 1:
            return False
        scheme = origins[0].partition("://")[0].lower() if origins else "http"
        place = _place(hosts[0], scheme)
        if place is None or not self._own(place[0]):
            return False
        return not origins or (scheme in ("http", "https") and _place(origins[0].partition("://")[2], scheme) == place)

    def _own(self, host: str) -> bool:
        """Whether a host is this machine; IP addresses are safe, since DNS cannot redirect them."""
        try:
            number = ipaddress.ip_address(host)
        except ValueError:
            return host in self.names
        return number.is_loopback or not self.local


def _place(netloc: str, scheme: str) -> tuple[str, int] | None:
    """Host and port of `HOST[:PORT]`; None for anything else.

    >>> _place("[::1]:80", "http"), _place("LocalHost", "https"), _place("a@b", "http"), _place("a/b", "http")
    (('::1', 80), ('localhost', 443), None, None)
    """
    try:
        parts = urlsplit(f"//{netloc}")
        plain = not (parts.path or parts.query or parts.fragment or "@" in netloc)
        port = parts.port if parts.port is not None else PORTS.get(scheme, 80)
        return (parts.hostname.rstrip("."), port) if plain and parts.hostname else None
    except ValueError:
        return None
