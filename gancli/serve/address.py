"""Where the page listens: on this machine alone, unless another address is typed."""

from __future__ import annotations

import ipaddress
import socket

from gancli.errors import ConfigError


def bound(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one. Raises ConfigError where the address cannot be had."""
    try:
        if not host.strip():
            raise OSError
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError):
        raise ConfigError(
            f"host={host}: no address of that name; leave host out for this machine alone, or type host=0.0.0.0 for all"
        ) from None
    try:
        return socket.create_server((str(place[0]), port), family=family)
    except PermissionError:
        raise ConfigError(f"port={port}: this user may not listen there; type a port above 1023, or port=0") from None
    except OSError as error:
        raise ConfigError(
            f"host={host} port={port}: {error.strerror or error}; port=0 takes a free port, host=127.0.0.1 is this"
            " machine alone"
        ) from None


def loopback(listener: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def url(listener: socket.socket) -> str:
    """What to type into a browser on this machine."""
    host, port = listener.getsockname()[:2]
    place = ipaddress.ip_address(host)
    if place.is_unspecified:
        host = "127.0.0.1" if place.version == 4 else "::1"
    return f"http://{host}:{port}/" if ":" not in host else f"http://[{host}]:{port}/"
