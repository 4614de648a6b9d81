"""The built wheel, in an environment that borrows the installed torch and cannot see the checkout."""

from __future__ import annotations

import email
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import gancli
from tests.conftest import TINY

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_the_wheel_works_without_the_checkout(tmp_path: Path) -> None:
    def run(*words: str | Path) -> str:
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        done = subprocess.run(list(map(str, words)), cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path / "dist", ROOT)
    (wheel,) = (tmp_path / "dist").glob("gancli-*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "env")
    python, gan = tmp_path / "env" / "bin" / "python", tmp_path / "env" / "bin" / "gan"
    run(python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel)
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    # A plain path entry: what .pth files stand in the borrowed folder (the checkout's among them) is not followed.
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")

    where = run(python, "-c", "import gancli; print(gancli.__file__)").strip()
    assert Path(where).is_relative_to(tmp_path / "env")
    assert str(ROOT) not in run(python, "-c", "import sys; print(sys.path)").replace(
        sysconfig.get_paths()["purelib"], ""
    )
    assert run(gan, "--version").startswith("gan ")
    assert "gan train" in run(gan, "--help")
    assert "emoji" in run(gan, "train", "--help")
    assert run(gan, "--guide", "translate").startswith("# ")
    assert "model=biggan" in run(gan, "--systems", "biggan")
    run(gan, "train", *TINY, "steps=2")
    run(gan, "train", "dataset=fashion", "dataset.limit=8", "model.ch=4", "batch_size=4", "steps=1", "observers=none")
    run(gan, "train", "dataset=emoji", "dataset.limit=8", "model.ch=4", "batch_size=4", "steps=1", "observers=none")
    assert "outputs/sample/" in run(gan, "sample", "n=4")
    assert "outputs/interpolate/" in run(gan, "interpolate", "rows=2", "frames=3")
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
        about = email.message_from_bytes(archive.read(f"gancli-{gancli.__version__}.dist-info/METADATA"))
    tracked = subprocess.run(
        ["git", "ls-files", "gancli", "conf"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = tracked.stdout.splitlines()
    assert {f"gancli/{name}" if name.startswith("conf/") else name for name in names} <= packed
    assert {f.suffix for f in (site / "gancli" / "guide").iterdir()} >= {".md"}
    assert about["Requires-Python"] == ">=3.10"
    assert about["License-Expression"] == "MIT"
    assert "Environment :: Console" in about.get_all("Classifier", [])
    assert str(about.get_payload()).startswith("# gan")
