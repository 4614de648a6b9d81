"""Training on the features of a frozen network: what is trained, kept, counted, verified and refused."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gancli.compute.device import Compute
from gancli.config.build import make_as
from gancli.config.compose import compose
from gancli.config.settings import TrainSettings
from gancli.data.facts import DataFacts
from gancli.nets import dcgan
from gancli.nets.verdict import Verdict
from gancli.pretrained.pretrained import Pretrained
from gancli.pretrained.tiny import random
from gancli.store import checkpoint
from gancli.train import assemble, checks, rehearsal, streams
from gancli.train.engine import Engine
from gancli.train.rehearsal import Rehearsal
from tests.conftest import TINY, Gan
from tests.test_engine import same
from tests.test_train import same_run
from tests.tiny import weights

SEEN: list[Pretrained] = []  # what networks were given


class Heads(nn.Module):
    """A D of linear heads on each layer of a frozen network."""

    def __init__(self, pretrained: Pretrained, ch: int = 4, norm: str = "none", minibatch: int = 0):
        super().__init__()
        self.pretrained = pretrained
        self.heads = nn.ModuleDict({name: nn.Conv2d(count, 1, 1) for name, count in pretrained.channels.items()})
        SEEN.append(pretrained)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Verdict:
        maps = self.pretrained.maps(x)
        return Verdict([head(maps[name]).flatten(1).mean(1) for name, head in self.heads.items()])


class Second(nn.Module):
    """A G that adds to what the frozen G of another run draws from the same latents."""

    def __init__(self, pretrained: Pretrained, shape: tuple[int, ...], ch: int = 4, norm: str = "none"):
        super().__init__()
        self.first, self.more = pretrained, nn.Conv2d(shape[0], shape[0], 3, padding=1)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        drawn: Tensor = self.first(z)
        return torch.tanh(drawn + self.more(drawn))


@pytest.fixture(autouse=True)
def own_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks above as parts of the package."""
    SEEN.clear()
    for network in (Heads, Second):
        monkeypatch.setattr(network, "__module__", "gancli.nets.dcgan")
        monkeypatch.setattr(dcgan, network.__name__, network, raising=False)


HEADS = [*TINY, "model.D._target_=gancli.nets.dcgan.Heads"]
RANDOM = [*HEADS, "pretrained=random", "pretrained.layers=['1','3']", "observers.metrics.every=1"]


def engine_of(keys: list[str], double: bool = False) -> Engine:
    """double: in float64, with the running statistics of batch norm."""
    config = compose("train", keys)
    settings = make_as(TrainSettings, config, "")
    checks.check_sections(settings)
    source = streams.data(settings)
    game = assemble.game(config, DataFacts.of(source))
    for module in game.double().modules() if double else ():
        if isinstance(module, _BatchNorm):
            module.eval()
    return assemble.engine(settings, source, game, Compute())


def test_heads_alone_are_trained_and_kept() -> None:
    engine = engine_of(RANDOM)
    frozen = SEEN[-1]
    assert engine.game.pretrained is frozen
    before = [t.clone() for t in frozen.tensors()]
    start = {name: weights(net) for name, net in engine.game.nets.items()}
    for _ in range(3):
        engine.step()
    assert all(not start[name].equal(weights(net)) for name, net in engine.game.nets.items())  # G by D's features alone
    assert all(map(torch.equal, before, frozen.tensors()))
    assert not any(p.requires_grad or p.grad is not None for p in frozen.net.parameters())
    shapes = {name: list(p.shape) for name, p in engine.game.nets["D"].named_parameters()}
    assert shapes == {"heads.1.weight": [1, 8, 1, 1], "heads.1.bias": [1]} | {
        "heads.3.weight": [1, 32, 1, 1],
        "heads.3.bias": [1],
    }
    state = engine.state()
    assert [len(group["params"]) for group in state["optimizers"]["D"]["param_groups"]] == [4]
    assert [name for name in state["game"] if name.startswith("nets.D")] == [f"nets.D.{name}" for name in shapes]
    assert copy.deepcopy(engine.game).nets["D"].pretrained is frozen
    memory = Rehearsal(engine).footprint()
    own = [*engine.game.parameters(), *engine.game.buffers()]
    own += [t for net in engine.averages.values() for t in (*net.parameters(), *net.buffers())]
    assert memory is not None
    assert memory.held == sum(t.nbytes for t in [*own, *frozen.tensors()])


def test_micro_batches_give_the_same_step() -> None:
    whole, halves = engine_of(RANDOM, double=True), engine_of([*RANDOM, "micro_batch=2"], double=True)
    for _ in range(2):
        whole.step()
        halves.step()
    for name, net in whole.game.nets.items():
        assert (weights(net) - weights(halves.game.nets[name])).abs().max() <= 1e-6


def test_a_step_is_counted_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "TRIED", -1.0)
    config = compose("train", RANDOM)
    settings = make_as(TrainSettings, config, "")
    source = streams.data(settings)
    engine = engine_of(RANDOM)

    def twin() -> Engine:
        return assemble.twin(settings, config, source, DataFacts.of(source), engine.game.pretrained)

    counted = Rehearsal(engine, twin)
    assert counted.footprint() is not None
    assert not counted.real
    monkeypatch.setattr(rehearsal, "TRIED", 60.0)
    measured = Rehearsal(engine, twin)
    assert measured.footprint() is not None
    # The same operations, but for those of no cost that the meta device has, too.
    pairs = zip(counted.costs, measured.costs, strict=True)
    assert all(a.operations == b.operations for a, b in pairs)


def test_a_run_keeps_what_it_looked_through_and_resumes_to_the_bit(gan: Gan, tmp_path: Path) -> None:
    alone = gan("train", *RANDOM, "steps=4", "run_dir=alone")
    assert alone.code == 0, alone.err
    facts = random(layers=["1", "3"]).facts
    assert (
        f"pretrained random (SHA-256 {facts.sha256[:8]}..., 0 MiB), frozen; layers 1 (8), 3 (32)"
        in alone.out + alone.err
    )
    kept = {"name": "random", "sha256": facts.sha256, "dim": 32, "layers": {"1": 8, "3": 32}}
    assert json.loads(Path("alone/run.json").read_text(encoding="utf-8"))["pretrained"] == kept
    assert checkpoint.read_run(tmp_path / "alone/checkpoints/00000004.pt")["pretrained"] == kept
    assert gan("train", *RANDOM, "steps=2", "run_dir=half").code == 0
    assert gan("train", "resume=half", "steps=4").code == 0
    same_run(tmp_path / "alone", tmp_path / "half", 4)
    answer = gan("train", "resume=half", "steps=5", "pretrained.seed=1")
    assert answer.code == 2
    assert "pretrained.seed: 0 -> 1" in answer.err


def test_a_checkpoint_of_other_weights_is_refused(gan: Gan, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gan("train", *RANDOM, "steps=2", "run_dir=r").code == 0
    monkeypatch.setattr("gancli.pretrained.tiny.key", lambda *parts: 5)
    answer = gan("train", "resume=r", "steps=3")
    assert answer.code == 2
    assert "the pretrained network is not the one that the run was trained with: SHA-256" in answer.err
    assert "type pretrained.weights=PATH" in answer.err


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Weights of a small network of torchvision."""
    import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = torchvision.models.shufflenet_v2_x0_5(num_classes=2)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    return tmp_path / "net.pth"


def test_a_file_is_needed_where_something_is_put_through_it_alone(gan: Gan, file: Path) -> None:
    keys = [*HEADS, "pretrained=torchvision", "pretrained.arch=shufflenet_v2_x0_5", "pretrained.size=32"]
    keys += ["pretrained.layers=[stage2,stage4]", "pretrained.weights=net.pth", "steps=2", "run_dir=r"]
    made = gan("train", *keys)
    assert made.code == 0, made.err
    state = checkpoint.read_run(Path("r/checkpoints/00000002.pt"))
    assert state["config"]["pretrained"]["weights"] == str(file)
    assert state["pretrained"]["sha256"] == checkpoint.sha256(file)
    file.rename("moved.pth")
    assert gan("sample", "run=r", "n=4", "run_dir=s").code == 0  # G looks through nothing
    assert gan("sample", "run=r", "format=safetensors", "run_dir=x").code == 0
    assert gan("sample", "run=x/generator.safetensors", "n=4", "run_dir=y").code == 0
    assert Path("s/grid.png").read_bytes() == Path("y/grid.png").read_bytes()
    assert gan("sample", "run=r", "n=4", "run_dir=t", "pretrained.weights=moved.pth").code == 0
    lost = gan("train", "resume=r", "steps=3")
    assert lost.code == 2
    assert f"pretrained.weights={file} does not exist" in lost.err
    content = Path("moved.pth").read_bytes()
    Path("cut.pth").write_bytes(content[:-1000])
    other = {name: value + 1 for name, value in torch.load("moved.pth", weights_only=True).items()}
    torch.save(other, "other.pth")
    for name, words in {
        "cut": "truncated, of another type",
        "other": "not the one that the run was trained with",
    }.items():
        for verb in (["train", "resume=r", "steps=3"], ["sample", "run=r", "n=4", f"run_dir={name}"]):
            answer = gan(*verb, f"pretrained.weights={name}.pth")
            assert (answer.code, answer.err.count("\n")) == (2, 1) if verb[0] == "sample" else answer.code == 2
            assert words in answer.err
            assert "type pretrained.weights=" in answer.err
    assert gan("train", "resume=r", "steps=3", "pretrained.weights=moved.pth").code == 0


def test_a_generator_of_another_run_is_a_first_stage(gan: Gan, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, "first")
    keys = [*TINY, "model.G._target_=gancli.nets.dcgan.Second", "model.latent.dim=100", "pretrained=run"]
    made = gan("train", *keys, "pretrained.source=run:first#G", "steps=2", "run_dir=second")
    assert made.code == 0, made.err
    frozen = SEEN[-1] if SEEN else None
    assert frozen is None
    state = checkpoint.read_run(Path("second/checkpoints/00000002.pt"))
    own = checkpoint.sha256(tmp_path / "first/checkpoints/00000006.pt")
    assert state["pretrained"] == {"name": "run#G", "sha256": own, "dim": 0, "layers": {}}
    assert state["config"]["pretrained"]["source"] == f"run:{tmp_path / 'first'}#G"
    assert sorted(name for name in state["game"] if name.startswith("nets.G")) == [
        "nets.G.more.bias",
        "nets.G.more.weight",
    ]
    assert gan("sample", "run=second", "n=4", "run_dir=s").code == 0
    Path("first").rename("moved")
    lost = gan("sample", "run=second", "n=4", "run_dir=t")
    assert lost.code == 2
    assert "no such run" in lost.err
    assert "type pretrained.weights=run:FILE#NAME with the original checkpoint FILE" in lost.err
    assert gan("sample", "run=second", "n=4", "run_dir=t", "pretrained.weights=run:moved#G").code == 0
    assert Path("s/grid.png").read_bytes() == Path("t/grid.png").read_bytes()
    assert gan("train", "resume=second", "steps=3", "pretrained.source=run:moved#G").code == 0
    newer = gan("train", "resume=second", "steps=4", "pretrained.source=run:moved/checkpoints/00000004.pt#G")
    assert "type pretrained.source=run:FILE#NAME with the original checkpoint FILE" in newer.err
    other = gan("sample", "run=second", "n=4", "run_dir=u", "pretrained.weights=run:moved/checkpoints/00000004.pt#G")
    assert "not the one that the run was trained with: SHA-256" in other.err


def test_the_frozen_network_of_a_run_is_that_of_the_run(trained: Path) -> None:
    from gancli.draw.reading import load
    from gancli.pretrained.stored import stored

    for ema in (False, True):
        frozen = stored(f"run:{trained}#G", ema=ema)
        own = load(str(trained), ema=ema, standing_stats=0)
        z = own.inputs([(0, k) for k in range(3)])["z"]
        assert torch.equal(frozen(z), own.nets["G"](z))
        assert frozen.notes == (
            ("pretrained.ema=true: averaged weights, with batch norm's running statistics of the raw ones",)
            if ema
            else ()
        )


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ([*TINY, "pretrained=random"], "neither this game nor a network of this model uses pretrained="),
        (HEADS, "model.D needs a pretrained network: type pretrained=NAME (choices: clip, "),
        ([*HEADS, "pretrained=random", "pretrained.layers=[4]"], "pretrained.layers=4: this network has no such layer"),
        ([*HEADS, "pretrained=random", "pretrained.ch=0"], "pretrained.ch=0: must be at least 1"),
        ([*HEADS, "pretrained=random", "pretrained.where=x"], "unknown key pretrained.where"),
        ([*HEADS, "pretrained=run"], "missing key pretrained.source: type pretrained.source=run:PATH#NAME"),
        ([*HEADS, "pretrained=run", "pretrained.source=last"], "pretrained.source=last: expected run:PATH#NAME"),
        ([*HEADS, "pretrained=vgg16", "pretrained.weights=none.pth"], "none.pth does not exist: name a weights file"),
        ([*RANDOM, "pretrained._target_=gancli.metrics.extractor.vgg16"], "classes and functions of gancli.pretrained"),
        ([*RANDOM, "dataset.size=[2,8,8]"], "takes images of 1 or 3 channels, but was given [2, 8, 8]"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(gan: Gan, keys: list[str], words: str) -> None:
    answer = gan("train", *keys, "steps=1", "run_dir=r")
    assert answer.code == 2
    assert words in answer.err
    assert not Path("r").exists()


def test_weights_for_a_run_without_such_a_network_are_refused(gan: Gan, trained: Path) -> None:
    answer = gan("sample", f"run={trained}", "n=4", "pretrained.weights=x.pth")
    assert answer.code == 2
    assert "pretrained.weights=x.pth: this run has no pretrained network: leave it out" in answer.err


def test_the_engine_of_a_promise_is_not_built_for_a_sample(gan: Gan, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gan("train", *RANDOM, "steps=1", "run_dir=r").code == 0

    def read(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("read")

    monkeypatch.setattr("gancli.pretrained.tiny.Stages", read)
    assert gan("sample", "run=r", "n=4", "run_dir=s").code == 0


def test_states_are_the_same_after_a_pause() -> None:
    straight, first, second = engine_of(RANDOM), engine_of(RANDOM), engine_of(RANDOM)
    for _ in range(3):
        straight.step()
    first.step()
    second.load(copy.deepcopy(first.state()))
    second.step()
    second.step()
    same(straight.state(), second.state())


def test_a_judge_of_the_networks_own_images_is_warned_of(gan: Gan, file: Path) -> None:
    net = ["arch=shufflenet_v2_x0_5", "size=32", "weights=net.pth"]
    keys = [
        *HEADS,
        "pretrained=torchvision",
        *(f"pretrained.{key}" for key in net),
        "pretrained.layers=[stage2,stage4]",
    ]
    scores = ["observers.scores.every=1", "observers.scores.n=4", "observers.scores.metrics=[fid]"]
    scores += ["observers.scores.extractor=torchvision", "observers.scores.weights=net.pth"]
    scores += ['observers.scores.options=["extractor.arch=shufflenet_v2_x0_5","extractor.size=32"]']
    made = gan("train", *keys, *scores, "steps=2", "run_dir=r")
    assert made.code == 0, made.err
    told = "this run was trained with pretrained=shufflenet_v2_x0_5, which lowers the distances of shufflenet_v2_x0_5"
    assert (made.out + made.err).count(told) == 1
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in Path("r/eval").glob("*.json")]
    assert len(kept) == 3
    assert all(sum(told in line for line in one["warnings"]) == 1 for one in kept)
    judge = ["extractor=torchvision", *(f"extractor.{key}" for key in net)]
    both = gan("eval", "run=r", "n=12", "metrics=[fid,authenticity]", *judge, "run_dir=e")
    assert both.code == 0, both.err
    assert both.out.count(told) == 1
    other = gan("eval", "run=r", "n=12", "metrics=[fid,authenticity]", "extractor=random", "run_dir=f")
    assert other.code == 0, other.err
    assert "was trained with pretrained" not in other.out
