"""Tiny runs of generators with styles, which the tests of their tools share."""

from __future__ import annotations

from pathlib import Path

from gancli.cli import main

COMMON = [
    "dataset=random", "dataset.size=[3,16,16]", "dataset.n=24", "device=cpu", "observers.progress=null",
    "observers.grid.n=4", "observers.report=null", "model.latent.dim=8", "model.G.w_dim=10", "model.mapping_layers=2",
    "model.ch_base=64", "model.ch_max=8", "steps=3", "batch_size=4",
]  # fmt: skip
GROWN = ["game.first_side=4", "game.first=8", "game.fade=8", "game.hold=8", "game.batches=[4,4,4]", "batch_size=null"]


def train(folder: Path, kind: str, *words: str) -> Path:
    """Train a run of three steps in a folder; a growing one has reached 8×8 of 16×16."""
    keys = ["train", f"model={kind}", *COMMON, *words, f"run_dir={folder / kind}"]
    keys += GROWN if kind == "stylegan" else []
    given = {word.partition("=")[0]: word for word in keys}  # the last one of a key holds
    assert main(list(given.values())) == 0
    return folder / kind
