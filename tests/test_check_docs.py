"""Every command, snippet, link and picture of README and guide, with steps and images cut."""

from __future__ import annotations

import importlib.util
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from gancli.compute.device import Compute
from gancli.config.compose import compose, quote
from gancli.draw.sampling import Sampler
from gancli.games.latent import Latent
from gancli.losses.adversarial import Hinge
from gancli.losses.penalties import R1
from tests import docs, tiny
from tests.conftest import Gan
from tests.docs import PAGES, ROOT

if sys.version_info >= (3, 11):
    import tomllib

LONGEST = {"README": 250, "systems": 230}  # systems.md is written by a program
CUTS = {
    "train": ["steps=2", "batch_size=4", "observers.grid.n=4", "observers.progress=null"],
    "sample": ["n=4"],
    "interpolate": ["rows=2", "frames=3"],
    "eval": ["n=16"],
}
NARROW = {"r3gan": 32, "sagan": 16, "sngan": 16}  # model.ch of networks that are trained; else 8
# Classes of data that are not here; their side, if it is not in the command.
ABSENT = {"cifar10": (32, 10), "imagenet": (None, 1000), "facades": (None, 0), "horse2zebra": (None, 0)}
# Metrics whose network is a file of random weights here.
BY_FEATURES = {"fid", "kid", "prc", "is", "memorisation", "authenticity", "mifid", "fld"}
# Commands that install or test the project: not run here (test_installing.py, test_check_wheel.py).
OUTSIDE = ("make", "python3", ".venv/bin/pip")


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_short(page: str) -> None:
    assert len(docs.text(page).splitlines()) <= LONGEST.get(page, 200)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in [*docs.links(page), *(file for file, _ in docs.pictures(page))]:
        assert target.exists(), target
    for topic in re.findall(r"gan --guide ([a-z]+)", docs.text(page)):
        assert topic in PAGES, topic


@pytest.mark.parametrize("page", PAGES)
def test_a_command_stands_beside_every_picture(page: str) -> None:
    lines = docs.text(page).splitlines()
    for file, line in docs.pictures(page):
        below = " ".join(lines[line : line + 5])
        assert re.search(r"`(gan|python -m) [^`]+`", below), (page, file.name)


def test_every_picture_is_shown() -> None:
    shown = {file.resolve() for page in PAGES for file, _ in docs.pictures(page)}
    there = {path for ending in ("png", "gif") for path in (ROOT / ".assets").glob(f"*.{ending}")}
    assert there == shown


def test_the_readme_leads_to_every_page_and_shows_every_verb() -> None:
    assert {path.resolve() for path in docs.links("README")} >= {PAGES[page] for page in PAGES if page != "README"}
    shown = [" ".join(words) for words in docs.commands("README")]
    for start in ("make demo", "make test", *(f"gan {verb}" for verb in docs.VERBS), "gan --guide", "gan --systems"):
        assert any(command.startswith(start) for command in shown), start


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_extras_and_targets_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for page in PAGES:
        for names in re.findall(r"'(?:gancli|\.)\[([a-z0-9,]+)\]'", docs.text(page)):
            assert set(names.split(",")) <= set(project["optional-dependencies"]), (page, names)
        for words in docs.commands(page):
            if words[0] == "make":
                done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True)
                assert done.returncode == 0, words


@pytest.mark.parametrize("page", PAGES)
def test_modules_that_pages_name_exist(page: str) -> None:
    for name in re.findall(r"python -m ((?:gancli|tests)[a-z0-9_.]+)", docs.text(page)):
        assert importlib.util.find_spec(name) is not None, name


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory, weights_file: Path) -> Path:
    """A directory with all that the commands name: data, weights, a plain run as the last one, and a run by class."""
    from gancli.cli import main

    top = tmp_path_factory.mktemp("furnished")
    docs.furnish(top, weights_file)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(top)
        shared = [*CUTS["train"], "dataset.limit=200", "steps=2", "observers.checkpoints.every=1"]
        assert main(["train", "model=sngan", "model.conditioning=ac", "run_dir=classes", *shared]) == 0
        assert main(["train", "model=dcgan", "model.ch=8", *shared]) == 0
        assert main(["sample", "run=last", "format=safetensors", "run_dir=exported"]) == 0
        shutil.move(next((top / "exported").glob("*.safetensors")), top / "generator.safetensors")
    return top


def composed(words: list[str]) -> dict[str, Any]:
    """The configuration of a command of `gan train`; of a sweep, of its first job."""
    first = [word if "[" in word else word.split(",")[0] for word in words if word != "-m" and "interval(" not in word]
    swept = ("sweep_dir", "rank", "launcher", "search", "resume_sweep")
    own = [word for word in first if word.partition("=")[0].split(".")[0] not in swept]
    return compose("train", quote(own), [])


def train_cuts(words: list[str]) -> list[str]:
    """Keys that make a training small; that build it on noise of the right size where its data are not here."""
    config = composed(words)
    root = config["dataset"].get("root")
    elsewhere = ".torchvision." in config["dataset"]["_target_"] and not (root and Path(root).exists())
    if elsewhere or (root and not Path(root).exists() and "{" not in root):
        side, classes = ABSENT[next(name for name in ABSENT if name in f"{root} {config['dataset']}")]
        side = side or config["dataset"]["size"]
        sides = f"dataset.size=[3,{side},{side}]"
        labels = [f"dataset.classes={classes}"] if classes else []
        return ["dataset=random", sides, *labels, *narrow(config), "batch_size=4", "steps=0"]
    cuts = [*CUTS["train"], *narrow(config)]
    if "ch" in config["model"]:
        cuts = [*cuts, f"model.ch={NARROW.get(config['model']['name'], 8)}"]
    if config["auto_rules"] == "few_shot":  # which evaluates while it trains
        cuts += [f"observers.{name}.n=16" for name in ("scores", "copies", "final")]
        cuts += ["observers.scores.extractor=random", "dataset.size=32", "max_time=null"]
    if config["optimizer"]["schedule"]["start"] > 1:
        cuts = [*cuts, "optimizer.schedule.start=1"]
    return cuts


def narrow(config: dict[str, Any]) -> list[str]:
    """Keys that make networks with styles and growing ones narrow, these at their last size from the start."""
    cuts = ["model.ch_base=256", "model.ch_max=16"] if "ch_max" in config["model"] else []
    cuts += ["game.first_side=1024"] if "first_side" in config["game"] else []
    return cuts + (["model.D.resolution=128", "model.D.ch=8"] if "resolution" in config["model"].get("D", {}) else [])


def cut(verb: str, words: list[str], nth: int) -> list[str]:
    """The command of a page, its nth, as it runs here: few steps, few images, narrow networks."""
    given = {word.partition("=")[0] for word in words}
    if given & {"--help", "--cfg", "resume_sweep"}:
        return words
    if "resume" in given:
        return [*(word for word in words if not word.startswith("steps=")), f"steps={4 + nth}"]
    if verb == "train":
        cuts = train_cuts(words)
    elif "project" in given:
        cuts = ["project_steps=2"]
    elif given & {"seeds", "arithmetic", "input", "format", "w"}:  # which say how many themselves
        cuts = ["n=8"] if verb == "eval" else []
    else:
        cuts = CUTS[verb]
    if verb == "eval":
        metrics = next(
            (word.partition("=")[2].strip("[]").split(",") for word in words if word.startswith("metrics=")), ["fid"]
        )
        if set(metrics) & BY_FEATURES and "extractor" not in given:
            cuts = [*cuts, "extractor.weights=inception.pth"]
        if "n_real" in given:
            cuts = [*cuts, "n_real=16"]
    if "rank=loss_G" in words:
        cuts = [*cuts, "observers.metrics.every=1", "search.trials=2"]
    if "observers.scores.every" in given:
        cuts = [*cuts, "observers.scores.n=16"]
    if any(word.startswith("metrics=") and "class_accuracy" in word for word in words):
        cuts = [*cuts, "metrics.class_accuracy.images=640"]
    new = {each.partition("=")[0] for each in cuts}
    absent = "dataset=random" in cuts
    kept = [
        word
        for word in words
        if (key := word.partition("=")[0]) not in new
        and not (verb == "train" and key in ("images", "max_time"))
        and not (absent and key.split(".")[0] == "dataset")
    ]
    return [*kept, *cuts]


def run(gan: Gan, words: list[str], nth: int) -> None:
    """Run one command of a page, its nth, in this process; what is outside of this program is not run."""
    if words[0] in OUTSIDE:
        return
    if words[0] == "torchrun":
        words = ["gan", *words[words.index("gancli") + 1 :]]
    if words[:2] == ["python", "-m"]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", words[2:])
            patch.delitem(sys.modules, words[2], raising=False)  # runpy warns of a module that a test has imported
            runpy.run_module(words[2], run_name="__main__")
        return
    assert words[0].removeprefix(".venv/bin/") == "gan", words
    typed = [words[1], *cut(words[1], words[2:], nth)] if words[1] in docs.VERBS else words[1:]
    answer = gan(*typed)
    assert answer.code == 0, (" ".join(words), typed, answer.err)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_command_runs(page: str, gan: Gan, furnished: Path, tmp_path: Path) -> None:
    shutil.copytree(furnished, tmp_path, symlinks=True, dirs_exist_ok=True)
    for nth, words in enumerate(docs.commands(page)):
        run(gan, words, nth)


@pytest.mark.slow
def test_every_command_in_a_line_runs(gan: Gan, furnished: Path, tmp_path: Path) -> None:
    """Trainings that stand in tables and sentences, as far as no block has them."""
    shutil.copytree(furnished, tmp_path, symlinks=True, dirs_exist_ok=True)
    own = [page for page in PAGES if page != "systems"]  # whose commands test_guide.py composes and counts
    blocks = {tuple(words) for page in PAGES for words in docs.commands(page)}
    found = dict.fromkeys(tuple(words) for page in own for words in docs.inline(page) if words[1] == "train")
    left = [list(words) for words in found if words not in blocks]
    assert left
    for words in left:
        run(gan, words, 0)


def test_inline_commands_of_other_verbs_compose() -> None:
    for page in PAGES:
        for words in docs.inline(page):
            if words[1] != "train":
                assert compose(words[1], words[2:], []), words


def steps_of_a_duel(Duel: Any) -> None:
    """The guide's game trains and samples."""
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


NAMES = """
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
import numpy as np
import torch
from torch import Tensor, nn
from gancli.data.source import Source, finish
from gancli.losses.adversarial import AdversarialLoss
from gancli.losses.penalties import Context, Penalty
from gancli.metrics.images import ImageSet, Progress
from gancli.metrics.metric import ImageMetric
"""


def snippets(page: str, **replaced: str) -> dict[str, Any]:
    """The names that a page's Python blocks define, run in order."""
    names: dict[str, Any] = {}
    exec(NAMES, names)
    for block in docs.blocks(page, "python"):
        for old, new in replaced.items():
            block = block.replace(old, new)
        exec("from __future__ import annotations\n" + block, names)
    return names


def test_the_games_of_the_guide() -> None:
    names = snippets("games")
    steps_of_a_duel(names["Duel"])
    steps_of_a_duel(lambda nets, latent, d_steps: names["Judged"](nets, Hinge(), latent, {"r1": R1()}, d_steps=d_steps))


def test_loading_a_run_in_python(gan: Gan, trained: Path) -> None:
    assert snippets("sample", last=str(trained))["images"].shape == (16, 1, 8, 8)


def test_images_of_the_package_become_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    snippets("photos")
    assert len(list((tmp_path / "faces").glob("*.png"))) == 555


def test_every_python_block_is_in_one_of_these_pages() -> None:
    assert {page for page in PAGES if docs.blocks(page, "python")} == {"extend", "games", "photos", "sample"}


def test_the_parts_of_the_guide() -> None:
    from gancli.compute.rng import Rng
    from gancli.metrics.images import ImageSet

    names = snippets("extend")
    loss = names["Exponential"]()
    assert loss.discriminator(torch.zeros(2), torch.zeros(2)) == 2
    assert names["Generator"]((1, 8, 8), 4)(torch.zeros(3, 4)).shape == (3, 1, 8, 8)
    source = names["stripes"](size=16, limit=5)
    assert (len(source), source.shape) == (5, (1, 16, 16))
    zeros = torch.zeros(2, 2)
    context = names["Context"]({}, lambda x, *_: x.sum(1) + 3, zeros, zeros, None, None, Rng(0, total=2))
    assert names["LogitNorm"]()(context) == 9
    sets = [ImageSet(2, (1, 4, 4), lambda v=v: iter([torch.full((2, 1, 4, 4), v, dtype=torch.uint8)])) for v in (9, 4)]
    assert names["Brightness"]().look(*sets) == ({"brightness": 5.0}, {})


def test_the_guides_yaml_is_yaml() -> None:
    found = [yaml.safe_load(block) for page in PAGES for block in docs.blocks(page, "yaml")]
    assert any("model" in each for each in found)
