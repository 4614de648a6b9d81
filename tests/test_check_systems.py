"""Systems without POSIX: what Linux alone has is taken away before the package is imported."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import TINY

# The libraries are imported first: they know such systems themselves.
WITHOUT = """
import asyncio, multiprocessing, os, signal, sys
import hydra, jinja2, joblib, matplotlib.pyplot, omegaconf, PIL.Image, plotly, rich.progress, torch, torchvision
import torch._dynamo, torch.distributed

for name in ("fcntl", "grp", "posix", "pwd", "resource", "termios"):
    sys.modules[name] = None
for module, names in (
    (os, "O_NOFOLLOW O_DIRECTORY O_NONBLOCK O_CLOEXEC pread preadv pwrite readv sched_getaffinity getuid geteuid"
    " sysconf setpgid getpgid setsid killpg fork uname statvfs getloadavg fchmod chown mkfifo"),
    (signal, "SIGHUP SIGKILL SIGUSR1 SIGALRM"),
):
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
for known in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
    known.clear()

from gancli.cli import main

codes = []
for line in sys.argv[1:]:
    codes.append(main(line.split()))
print(codes)
"""


@pytest.mark.slow
def test_everything_works_without_what_linux_alone_has(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for k in range(8):
            path = tmp_path / "pictures" / f"{k}.png"
            Image.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8)).save(path)
            archive.write(path, path.name)
    tiny = " ".join(word for word in TINY if not word.startswith(("dataset", "observers.report", "observers.progress")))
    lines = [
        "--help",
        f"train {tiny} dataset=folder dataset.root=pictures steps=2",
        f"train {tiny} dataset=zip dataset.root=all.zip dataset.store=encoded steps=2",
        "train resume=last steps=3",
        "sample n=4",
        "interpolate rows=2 frames=3 format=gif",
        "eval n=8 metrics=[swd]",
        f"train -m {tiny} dataset=folder dataset.root=pictures steps=1 seed=1,2 launcher=process",
        f"train -m {tiny} dataset=folder dataset.root=pictures steps=1 seed=1,2 launcher=joblib",
    ]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *lines], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.splitlines()[-1:] == [str([0] * 8 + [2])], done.stderr
    assert done.stderr.splitlines()[-1] == (
        "gan: launcher=joblib needs file locks, which this system lacks: type launcher=process"
    )
