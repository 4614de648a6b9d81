"""Keeps the latent page open until Ctrl-C."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import sys
import tempfile
import warnings
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gancli.errors import ConfigError, Interrupted
from gancli.serve import address
from gancli.serve.desk import Desk, Wish

PATIENCE = 2  # seconds that open connections get at the end


def need_library() -> None:
    """Raise ConfigError where the library of the page is missing."""
    if importlib.util.find_spec("nicegui") is None:
        raise ConfigError("serve=true needs NiceGUI, which is not installed: type pip install 'gancli[serve]'")


def serve(desk: Desk, first: Wish, listener: socket.socket, show: bool, named: str = "") -> None:
    """Serve the page; it opens with the sheet `first`. Raises Interrupted at Ctrl-C.

    show: open it in the browser. named: the host that was typed.
    """
    import uvicorn

    from gancli.serve import page

    local, where = address.loopback(listener), address.url(listener)
    if not local:
        print(f"note: {listener.getsockname()[0]} is not this machine alone: all who reach it can draw", flush=True)
    print(
        f"{desk.what.lower()} of {desk.sampler.run.name} at step {desk.sampler.step:,}: {where} (Ctrl-C ends it)",
        flush=True,
    )
    if show and screen():
        webbrowser.open(where)
    folder = tempfile.TemporaryDirectory(prefix="gan-page-", ignore_cleanup_errors=True)
    with folder as place, _quiet_signals(), warnings.catch_warnings():
        app = page.application(desk, first, Path(place), local, named)
        # NiceGUI looks at every object there is, and one of torch's complains of being looked at.
        warnings.filterwarnings("ignore", "`torch.distributed.reduce_op`", FutureWarning)
        keys: dict[str, Any] = {"access_log": False, "timeout_graceful_shutdown": PATIENCE}
        try:
            uvicorn.Server(uvicorn.Config(app, log_level="critical", **keys)).run(sockets=[listener])
        finally:
            desk.close()
    raise Interrupted("the page is closed")


def screen() -> bool:
    """Whether a browser's window would be seen here."""
    if os.environ.get("SSH_CONNECTION"):
        return False
    return sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


@contextmanager
def _quiet_signals() -> Iterator[None]:
    """The server ends well by itself at a signal, but then raises it again, which would end the program badly."""

    def ignore(number: int, frame: Any) -> None:
        return None

    before = {number: signal.signal(number, ignore) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
