"""The page's web server, which runs until Ctrl-C."""

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
from gancli.serve.service import Service, SheetRequest

PATIENCE = 2  # seconds that open connections get at shutdown


def need_library() -> None:
    """Raise ConfigError if NiceGUI is missing."""
    if importlib.util.find_spec("nicegui") is None:
        raise ConfigError("serve=true needs NiceGUI, which is not installed: type pip install 'gancli[serve]'")


def serve(service: Service, first: SheetRequest, listener: socket.socket, show: bool, named: str = "") -> None:
    """Serve the page, which first shows the sheet `first`. Raises Interrupted at Ctrl-C.

    show: open it in a browser. named: the value of `host`.
    """
    import uvicorn

    from gancli.serve import page

    local, where = address.loopback(listener), address.url(listener)
    if not local:
        print(
            f"note: {listener.getsockname()[0]} is reachable from other machines: everyone who can connect can use the"
            " page",
            flush=True,
        )
    of = f"{service.what.lower()} of {service.sampler.run.name} at step {service.sampler.step:,}"
    print(
        f"{of}: {where} (Ctrl-C ends it)",
        flush=True,
    )
    if show and screen():
        webbrowser.open(where)
    folder = tempfile.TemporaryDirectory(prefix="gan-page-", ignore_cleanup_errors=True)
    with folder as place, _quiet_signals(), warnings.catch_warnings():
        app = page.application(service, first, Path(place), local, named)
        # NiceGUI inspects all objects, and one of torch's warns when it is inspected.
        warnings.filterwarnings("ignore", "`torch.distributed.reduce_op`", FutureWarning)
        keys: dict[str, Any] = {"access_log": False, "timeout_graceful_shutdown": PATIENCE}
        try:
            uvicorn.Server(uvicorn.Config(app, log_level="critical", **keys)).run(sockets=[listener])
        finally:
            service.close()
    raise Interrupted("the page is closed")


def screen() -> bool:
    """Whether this machine can show a browser window."""
    if os.environ.get("SSH_CONNECTION"):
        return False
    return sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


@contextmanager
def _quiet_signals() -> Iterator[None]:
    """Ignore the signal that the server raises again after its own shutdown, which would kill the program."""

    def ignore(number: int, frame: Any) -> None:
        return None

    before = {number: signal.signal(number, ignore) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
