"""The address at which the page's server listens: this machine only, unless `host` is given."""

from __future__ import annotations

import ipaddress
import socket

from gancli.errors import ConfigError


def bound(host: str, port: int) -> socket.socket:
    """Open a listening socket; port 0 selects a free port. Raises ConfigError if the address is not available."""
    try:
        if not host.strip():
            raise OSError
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError):
        raise ConfigError(
            f"host={host}: no such address; leave host out to listen on this machine only, or set host=0.0.0.0 for all"
            " interfaces"
        ) from None
    try:
        return socket.create_server((str(place[0]), port), family=family)
    except PermissionError:
        raise ConfigError(f"port={port}: this user may not listen there; set a port above 1023, or port=0") from None
    except OSError as error:
        raise ConfigError(
            f"host={host} port={port}: {error.strerror or error}; port=0 selects a free port, host=127.0.0.1 is this"
            " machine only"
        ) from None


def loopback(listener: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def url(listener: socket.socket) -> str:
    """The page's URL for a browser on this machine."""
    host, port = listener.getsockname()[:2]
    place = ipaddress.ip_address(host)
    if place.is_unspecified:
        host = "127.0.0.1" if place.version == 4 else "::1"
    return f"http://{host}:{port}/" if ":" not in host else f"http://[{host}]:{port}/"
