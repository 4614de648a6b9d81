"""README and guide as the tests read them: pages, commands, snippets, pictures; and what their commands name."""

from __future__ import annotations

import re
import shlex
import tarfile
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import torch
import torchvision
from PIL import Image

from tests import foreign

ROOT = Path(__file__).resolve().parent.parent
GUIDE = ROOT / "gancli" / "guide"
PAGES = {"README": ROOT / "README.md"} | {path.stem: path for path in sorted(GUIDE.glob("*.md"))}

VERBS = ("train", "sample", "eval", "interpolate")
# Of a line in backticks: a verb with keys. Names in capitals are for the reader to fill in.
INLINE = re.compile(r"`(gan (?:" + "|".join(VERBS) + r")\b[^`]*)`")


def text(page: str) -> str:
    """A page's Markdown."""
    return PAGES[page].read_text(encoding="utf-8")


def blocks(page: str, kind: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"```{kind}\n(.*?)```", text(page), re.DOTALL)


def commands(page: str) -> list[list[str]]:
    """The commands of the page's shell blocks, as lists of words: continued lines joined, comments dropped."""
    return [words for block in blocks(page, "bash") for words in in_block(block)]


def in_block(block: str) -> Iterator[list[str]]:
    """The commands of one shell block."""
    for line in block.replace("\\\n", " ").splitlines():
        command = line.split("  #")[0].strip()
        if command and not command.startswith("#"):
            yield shlex.split(command)


def inline(page: str) -> list[list[str]]:
    """Commands in backticks outside of blocks, without those that leave a name to the reader."""
    prose = re.sub(r"```.*?```", "", text(page), flags=re.DOTALL)
    found = [shlex.split(command.replace(r"\|", "|")) for command in INLINE.findall(prose)]
    return [words for words in found if not any(re.search(r"=[A-Z_]{3,}|\.\.\.", word) for word in words)]


def pictures(page: str) -> Iterator[tuple[Path, int]]:
    """Each picture's file and its line."""
    lines = text(page).splitlines()
    for number, line in enumerate(lines):
        for name in [*re.findall(r"!\[[^\]]*\]\(([^)]+)\)", line), *re.findall(r'<img src="([^"]+)"', line)]:
            yield PAGES[page].parent / name, number


def links(page: str) -> Iterator[Path]:
    """Files of this project that a page links to."""
    prose = re.sub(r"```.*?```", "", text(page), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", prose):
        yield PAGES[page].parent / target


def furnish(corner: Path, weights: Path) -> None:
    """Write what the pages' commands name: folders of images, archives, MNIST's files, weights."""
    rng = np.random.default_rng(0)

    def image(side: tuple[int, int] = (40, 36)) -> Image.Image:
        return Image.fromarray(rng.integers(0, 256, (*side, 3), dtype=np.uint8))

    def folder(path: str, count: int = 16) -> None:
        (corner / path).mkdir(parents=True)
        for k in range(count):
            image().save(corner / path / f"{k}.png")

    for name in ("photos/cats", "photos/dogs", "mine", "theirs", "faces"):
        folder(name)
    for split in ("train", "test"):
        folder(f"pairs/{split}/A", 16)
        folder(f"pairs/{split}/B", 16)
        folder(f"domains/{split}A", 16)
        folder(f"domains/{split}B", 16)
    widths = [16, 16, 16, 8, 4, 2, 1]  # of the narrow networks that are trained here, at 256 pixels
    state = {"g_ema": foreign.rosinality_g(widths, 512, 8), "d": foreign.rosinality_d(widths)}
    torch.save(state, corner / "weights.pt")
    with torch.random.fork_rng(devices=[]):
        torch.save(torchvision.models.mobilenet_v2().state_dict(), corner / "mobilenet_v2.pth")
    with ZipFile(corner / "photos.zip", "w") as archive:
        for path in sorted((corner / "mine").iterdir()):
            archive.write(path, path.name)
    for k in range(3):
        with tarfile.open(corner / f"s-{k:03}.tar", "w") as shard:
            for path in sorted((corner / "mine").iterdir())[k::3]:
                shard.add(path, path.name)
    import datasets

    files = [str(path) for path in sorted((corner / "mine").iterdir())]
    datasets.disable_progress_bars()
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cats", "dogs"])})
    table = datasets.Dataset.from_dict({"image": files, "label": [k % 2 for k in range(len(files))]}, features)
    table.save_to_disk(str(corner / "parquet_folder"))
    (corner / "mnist/MNIST/raw").mkdir(parents=True)
    for part, count in (("train", 1300), ("t10k", 300)):
        for kind, head, content in (
            ("images-idx3", [2051, count, 28, 28], rng.integers(0, 256, count * 784, dtype=np.uint8)),
            ("labels-idx1", [2049, count], np.arange(count, dtype=np.uint8) % 10),
        ):
            data = np.array(head, ">i4").tobytes() + content.tobytes()
            (corner / "mnist/MNIST/raw" / f"{part}-{kind}-ubyte").write_bytes(data)
    (corner / "inception.pth").symlink_to(weights)
