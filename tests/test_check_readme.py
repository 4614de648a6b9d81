"""Every command of the README, with steps and images cut, in the order it stands there."""

from __future__ import annotations

import math
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gancli.compute.device import Compute
from gancli.draw.sampling import Sampler
from gancli.games.latent import Latent
from gancli.losses.adversarial import Hinge
from gancli.losses.penalties import R1
from tests import tiny
from tests.conftest import Gan

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CUTS = {
    "train": ["steps=2", "batch_size=4", "observers.grid.n=4", "observers.progress=null"],
    "sample": ["n=4"],
    "interpolate": ["rows=2", "frames=3"],
    "eval": ["n=16"],
}


def commands() -> Iterator[str]:
    """The command lines of all shell blocks, continued lines joined, comments dropped."""
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            command = line.split("  #")[0].strip()
            if command and not command.startswith("#"):
                yield command


@pytest.mark.slow
def test_figures_of_the_readme_are_drawn(tmp_path: Path) -> None:
    modules = [shlex.split(c) for c in commands() if c.startswith("python -m")]
    assert modules
    for _, _, module, *words in modules:
        done = subprocess.run([sys.executable, "-m", module, *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / words[-1]).stat().st_size > 1000


def test_the_readme_shows_every_verb() -> None:
    shown = list(commands())
    for start in ("make demo", "make test", "gan train", "gan sample", "gan eval", "gan interpolate"):
        assert any(c.startswith(start) for c in shown), start


def test_nothing_is_left_to_fill_in() -> None:
    assert not re.search(r"@[A-Z]+@", README)


def test_make_targets_and_pictures_exist() -> None:
    for command in commands():
        if command.startswith("make "):
            done = subprocess.run(["make", "-n", *command.split()[1:]], cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, command
    for picture in re.findall(r"\]\((?!http)([^)#]+)\)", re.sub(r"```.*?```", "", README, flags=re.DOTALL)):
        assert (ROOT / picture).exists(), picture


def steps_of_a_duel(Duel: Any) -> None:
    """The README's game plays and draws."""
    engine = tiny.engine()
    duel = Duel(dict(engine.game.nets.items()), Latent(dim=4), d_steps=2)
    duel.fields = engine.game.fields
    before = tiny.weights(duel)
    played = tiny.engine(duel)
    logs = played.step()
    assert {"loss_D", "loss_G", "D_real", "grad_norm_D", "grad_norm_G"} <= set(logs)
    assert played.seen == 16
    assert not torch.equal(before, tiny.weights(duel))
    drawn = Sampler(duel, played.networks(), tiny.facts_of((1, 8, 8)), Compute(), truncation=0.5).sample(
        [(0, 0), (0, 1)]
    )
    assert drawn.shape == (2, 1, 8, 8)


@pytest.fixture
def corner(tmp_path: Path, weights_file: Path) -> Path:
    """What the commands name: folders of images, and a weights file for the extractor."""
    for name in ("photos", "mine", "theirs"):
        (tmp_path / name).mkdir()
        for k in range(16):
            pixels = np.random.default_rng(k).integers(0, 256, (40, 36, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{k}.png")
    (tmp_path / "inception.pth").symlink_to(weights_file)
    return tmp_path


@pytest.mark.slow
def test_every_command_runs(gan: Gan, corner: Path) -> None:
    ran = 0
    for command in commands():
        words = shlex.split(command)
        if words[0] != "gan":
            continue
        verb, rest = (words[1], words[2:]) if len(words) > 1 else ("", [])
        given = {w.partition("=")[0] for w in rest}
        cuts = [] if "--help" in rest or given & {"resume", "resume_sweep"} else CUTS.get(verb, [])
        if "observers.scores.every" in given:
            cuts = [*cuts, "observers.scores.n=16"]
        if any(w.startswith("metrics=") and "class_accuracy" in w for w in rest):
            cuts = [*cuts, "metrics.class_accuracy.images=640"]
        if given & {"seeds", "arithmetic", "input"}:  # which say how many
            cuts = [cut for cut in cuts if verb == "eval" or not cut.startswith("n=")]
        if "resume" in given:
            rest = ["steps=4" if w.startswith("steps=") else w for w in rest]
        rest = [w for w in rest if w.partition("=")[0] not in {c.partition("=")[0] for c in cuts}]
        answer = gan(verb, *rest, *cuts)
        assert answer.code == 0, (command, answer.err)
        ran += 1
    assert ran >= 10


def test_python_of_the_readme(gan: Gan, trained: Path) -> None:
    """The snippets run as they stand: loading a run, a loss of one's own, a data set of one's own."""
    import torch
    from torch import Tensor

    from gancli.data.source import Source, finish
    from gancli.losses.adversarial import AdversarialLoss

    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {"np": np, "Tensor": Tensor, "Source": Source, "finish": finish, "AdversarialLoss": AdversarialLoss}
    names |= {"nn": torch.nn, "math": math, "torch": torch}
    for block in blocks:
        exec("from __future__ import annotations\n" + block.replace('load("last")', f"load({str(trained)!r})"), names)
    assert names["images"].shape == (16, 1, 8, 8)  # type: ignore[attr-defined]
    assert names["Generator"]((1, 8, 8), 4)(torch.zeros(3, 4)).shape == (3, 1, 8, 8)  # type: ignore[operator]
    loss = names["Exponential"]()  # type: ignore[operator]
    assert loss.discriminator(torch.zeros(2), torch.zeros(2)) == 2
    steps_of_a_duel(names["Duel"])
    steps_of_a_duel(lambda nets, latent, d_steps: names["Judged"](nets, Hinge(), latent, {"r1": R1()}, d_steps=d_steps))
    source = names["stripes"](size=16, limit=5)  # type: ignore[operator]
    assert len(source) == 5
    assert source.shape == (1, 16, 16)
