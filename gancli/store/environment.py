"""What results depend on besides the configuration: versions, host, git commit."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def environment() -> dict[str, Any]:
    """Return versions, host and git commit, which results depend on besides the configuration."""
    names = ("gancli", "torch", "torchvision", "hydra-core", "torch-fidelity", "numpy")
    versions = {name: _version(name) for name in names}
    return {
        "versions": {"python": platform.python_version(), **versions},
        "git": _git_commit(),
        "host": platform.node(),
        "platform": platform.platform(),
        "processor": f"{os.cpu_count()} cores",
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Return the commit of the package's checkout, with a + if it is changed; None for an installed package."""
    here = Path(__file__).resolve().parent.parent.parent
    if not (here / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
