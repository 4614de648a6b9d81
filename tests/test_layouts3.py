"""StyleGAN 3 weights in NVIDIA's layout: the same images here, and files that `init=` takes or refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gancli.nets import fitting, layouts3
from gancli.nets.layers import alias_free
from gancli.nets.layouts import NVIDIA, LayoutError, ours
from gancli.nets.stylegan3 import Generator, Variant
from gancli.train.assemble import shapes_only
from tests import foreign, styled3
from tests.conftest import Gan

Z, W, BASE, MOST = 5, 6, 64, 8  # of T; R has as many channels by twice the settings
VARIANTS = get_args(Variant)
RUN = [
    "train", "model=stylegan3", "model.ch_base=64", "model.ch_max=8", "model.latent.dim=5", "model.G.w_dim=6",
    "dataset=random", "dataset.size=32", "dataset.n=8", "batch_size=4", "observers=none", "device=cpu", "steps=0",
    "run_dir=r",
]  # fmt: skip


@pytest.fixture(autouse=True)
def not_rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No run here is long enough for its memory and time to matter."""
    for name in ("TRIED", "COUNTED"):
        monkeypatch.setattr(f"gancli.train.rehearsal.{name}", 0.0)


@pytest.fixture
def double() -> Iterator[None]:
    """Networks of this test have buffers of float64, too."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def drawn(variant: str = "T", side: int = 32, labels: int = 0, seed: int = 0) -> styled3.State:
    return styled3.drawn(side, Z, W, base=BASE, most=MOST, variant=variant, labels=labels, seed=seed)  # type: ignore[arg-type]


def here(variant: str = "T", labels: int = 0, **options: Any) -> Generator:
    more = 2 if variant == "R" else 1
    options = {"ch_base": BASE // more, "ch_max": MOST // more, "w_dim": W} | options
    kind = "projection" if labels else "none"
    return Generator((3, 32, 32), Z, labels, variant=variant, conditioning=kind, **options)  # type: ignore[arg-type]


def whole(plane: Tensor) -> Tensor:
    """All terms of a filter, also those that are lost in float32."""
    values, vectors = torch.linalg.eigh(plane)
    return torch.stack([(vectors * values).T, vectors.T], 1)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("labels", [0, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_generators_make_the_same_images(variant: str, labels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {name: t.float() for name, t in drawn(variant, labels=labels).items()}
    net = here(variant, labels)
    net.load_state_dict(layouts3.ours(state))
    theirs = styled3.Network(state, 32, base=BASE, most=MOST, variant=variant)  # type: ignore[arg-type]
    z, y = foreign.drawn(9)(3, Z).double(), torch.arange(3) % labels if labels else None
    hot = None if y is None else torch.eye(labels)[y]

    def apart(net: Generator, rows: slice) -> float:
        with torch.no_grad():
            made = net(z[rows], None if y is None else y[rows])
            wanted = theirs(z[rows], None if hot is None else hot[rows])
        assert made.shape == wanted.shape
        return float((made - wanted).abs().max() / wanted.abs().max())

    assert apart(net, slice(3)) < 1e-7  # eps of demodulation acts on styles that theirs divide by those of the batch
    if variant == "R":
        assert apart(net, slice(1)) < 1e-7  # terms of radial filters that float32 does not hold
        monkeypatch.setattr(alias_free, "separated", whole)
        exact = here(variant, labels)
        exact.load_state_dict(net.state_dict())
        net = exact
    assert max(apart(net, slice(k, k + 1)) for k in range(3)) < 1e-9


# -- files -------------------------------------------------------------------------------------------------------------


def content(variant: str = "T", labels: int = 0) -> dict[str, styled3.State]:
    """What NVIDIA's training keeps: the average has the network's buffers."""
    nets = {name: drawn(variant, labels=labels, seed=seed) for name, seed in (("G", 6), ("G_ema", 7))}
    buffers = ("w_avg", "freqs", "phases", "magnitude_ema")
    nets["G_ema"] |= {name: t.clone() for name, t in nets["G"].items() if name.endswith(buffers)}
    nets["D"] = foreign.nvidia_d([8, 8, 4, 2], "resnet", labels=labels)
    return nets


def checkpoint() -> dict[str, Any]:
    found: dict[str, Any] = torch.load("r/checkpoints/00000000.pt", weights_only=True)
    return found


def held(state: dict[str, Any], name: str) -> dict[str, Tensor]:
    prefix = f"nets.{name}."
    return {k.removeprefix(prefix): t for k, t in state["game"].items() if k.startswith(prefix)}


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() - wanted.keys() <= {"mapping.mean"}
    assert [name for name, t in wanted.items() if not torch.equal(found[name], t)] == []


@pytest.mark.parametrize("form", ["dictionary", "flat", "safetensors"])
def test_a_run_starts_from_a_file(gan: Gan, form: str) -> None:
    nets = content(labels=4)
    flat = {f"{net}.{name}": t.contiguous() for net, state in nets.items() for name, t in state.items()}
    name = "x.safetensors" if form == "safetensors" else "x.pt"
    if form == "safetensors":
        save_file(flat, name)
    else:
        torch.save(flat if form == "flat" else nets, name)
    words = ["model.conditioning=projection", "dataset.classes=4", "model.D.mapping_layers=2", f"init={name}"]
    answer = gan(*RUN, *words)
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "model.ema.ramp=null" in answer.err  # else the average would be discarded
    answer = gan(*RUN, *words, "model.ema.ramp=null")
    assert answer.code == 0, answer.err
    assert (
        f"G starts from G of {Path(name).absolute()}, in NVIDIA's layout, its EMA from the file's average" in answer.err
    )
    state = checkpoint()
    same(held(state, "G"), layouts3.ours(nets["G"]))
    same(state["ema"]["G"], layouts3.ours(nets["G_ema"]))
    same(held(state, "D"), ours(NVIDIA, "D", nets["D"]))


def test_a_bare_generator_is_sampled_and_trained(gan: Gan) -> None:
    state = drawn("R")
    torch.save(state, "g.pt")
    answer = gan(*RUN, "model.variant=R", "model.ch_base=32", "model.ch_max=4", "model.D.ch_base=64", "init=g.pt")
    assert answer.code == 0, answer.err
    assert "G starts from the only network of" in answer.err
    assert "D starts from new weights" in answer.err
    same(held(checkpoint(), "G"), layouts3.ours(state))
    assert gan("sample", "run=r", "n=4", "truncation=0.7", "run_dir=s").code == 0
    assert gan("train", "resume=r", "steps=1").code == 0


def test_single_networks_by_their_names_in_the_file(gan: Gan) -> None:
    nets = content()
    torch.save(nets, "x.pt")
    answer = gan(*RUN, "init={G: 'run:x.pt#G_ema', D: run:x.pt}")
    assert answer.code == 0, answer.err
    same(held(checkpoint(), "G"), layouts3.ours(nets["G_ema"]))
    same(held(checkpoint(), "D"), ours(NVIDIA, "D", nets["D"]))


def test_what_does_not_fit_names_the_command_that_does(gan: Gan) -> None:
    torch.save(content(), "x.pt")
    path = Path("x.pt").absolute()
    fits = "dataset.size=32 model.ch_base=64 model.ch_max=8 model.latent.dim=5 model.G.w_dim=6 model.ema.ramp=null"

    def refused(*words: str) -> str:
        answer = gan(*RUN, *words)
        assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
        assert not Path("r").exists()
        return answer.err

    said = refused("init=x.pt", "model.variant=R", "model.mapping_layers=3")
    assert f"type gan train model=stylegan3 {fits} init={path}\n" in said
    assert "it differs in model.variant, model.mapping_layers;" in said
    torch.save(styled3.drawn(32, Z, W, base=10_000, most=4), "wide.pt")  # whose tensors would fit
    words = ["dataset.size=64", "model.ch_base=10000", "model.ch_max=4"]
    assert "it differs in dataset.size;" in refused("init=wide.pt", *words)
    torch.save(drawn("R"), "r.pt")
    fits = "dataset.size=32 model.variant=R model.ch_base=32 model.ch_max=4 model.latent.dim=5 model.G.w_dim=6"
    assert f"type gan train model=stylegan3 {fits} init={Path('r.pt').absolute()}\n" in refused("init=r.pt")
    torch.save({"D": foreign.nvidia_d([8, 8, 4, 2], "orig")}, "d.pt")
    assert "model=stylegan3 dataset.size=32 model.ch_base=64 model.ch_max=8 model.D.architecture=orig" in refused(
        "init=d.pt"
    )
    for word in ("model.G.filtered=true", "model.G.margin=10", "model.G.mapping_rate=0.01"):
        key, value = word.split("=")
        other = {"true": "false", "10": "4", "0.01": "0.1"}[value]
        assert f"these weights are for {word}" in refused("init=x.pt", f"{key}={other}")


def test_weights_of_the_other_system_are_refused(gan: Gan) -> None:
    torch.save(content(), "three.pt")
    torch.save({"G": foreign.nvidia_g([8, 8, 8, 4], 5, W, 2)}, "two.pt")
    answer = gan(*RUN, "init=two.pt")
    assert "holds StyleGAN 2 weights in NVIDIA's layout: type model=stylegan2" in answer.err
    words = ["train", "dataset=random", "dataset.size=32", "device=cpu", "steps=0"]
    for model in ("stylegan2", "dcgan"):
        answer = gan(*words, f"model={model}", "init=three.pt")
        assert (answer.code, answer.err.count("\n")) == (2, 1)
        assert "holds StyleGAN 3 weights in NVIDIA's layout: " in answer.err
        assert "model=stylegan3" in answer.err
    torch.save({"G": content()["G"], "G_ema": foreign.nvidia_g([8, 8, 8, 4], 5, W, 2)}, "both.pt")
    assert "is neither a checkpoint of this program nor" in gan(*RUN, "init=both.pt").err
    nets = content()
    nets["G_ema"]["synthesis.input.phases"] = nets["G_ema"]["synthesis.input.phases"] + 0.1
    torch.save(nets, "apart.pt")
    assert "G, G_ema have different frequencies: name one" in gan(*RUN, "init=apart.pt").err


def test_what_would_make_other_images_is_refused() -> None:
    state, name = drawn(), "synthesis.L5_52_7"
    turned = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    up, radial = state[f"{name}.up_filter"], drawn("R")["synthesis.L3_36_8.down_filter"]
    for change, said in [
        ({"synthesis.input.transform": turned}, "moves all its images"),
        ({f"{name}.up_filter": up + 2e-5}, rf"another filter in {name}.up_filter"),
        ({f"{name}.up_filter": up[:-2]}, rf"another filter in {name}.up_filter"),
        ({"synthesis.L3_36_8.down_filter": radial}, r"another filter in synthesis.L3_36_8.down_filter"),
        ({f"{name}.magnitude_ema": torch.tensor(0.0)}, "a mean square is above 0"),
        ({f"{name}.magnitude_ema": torch.ones(1)}, "a mean square is above 0"),
        ({f"{name}.bias": torch.full((7,), float("nan"))}, "not finite"),
        ({f"{name}.noise_strength": torch.ones(())}, f"has {name}.noise_strength"),
        ({"synthesis.L15_32_3.weight": torch.ones(3, 3, 1, 1)}, "has 16 layers with weights, not 15"),
        ({"synthesis.L5_36_7.weight": torch.ones(8, 8, 3, 3)}, "has 15 layers with weights"),
        ({"synthesis.L0_36_8.weight": torch.ones(8, 8, 5, 5)}, r"layers of the shape \[8, 8, 5, 5\]"),
    ]:
        with pytest.raises(LayoutError, match=said):
            layouts3.ours(state | change)
    assert layouts3.ours(state | {f"{name}.up_filter": up + 5e-6}).keys() == here().state_dict().keys()
    for gone in (f"{name}.down_filter", f"{name}.affine.bias", "mapping.fc0.weight", "synthesis.input.phases"):
        with pytest.raises(LayoutError, match=rf"lacks {gone}"):
            layouts3.ours({key: t for key, t in state.items() if key != gone})
    for old, new, said in [
        ("L3_36_8", "L3_40_8", "has a layer L3_40_8, which has 36 pixels"),
        ("L14_32_3", "L14_64_3", "another filter"),
        ("L14_32_3", "L14_99999_3", "images of 99999 pixels"),
    ]:
        with pytest.raises(LayoutError, match=said):
            layouts3.ours({key.replace(old, new): t for key, t in state.items()})


@pytest.mark.parametrize(
    ("side", "base", "most", "variant"),
    [
        (1024, 32768, 512, "T"), (256, 16384, 512, "R"), (512, 32768, 512, "R"), (64, 2048, 128, "T"),
        (32, 100, 7, "R"), (32, 64, 1000, "T"), (16, 3, 2, "T"),
    ],
)  # fmt: skip
def test_settings_are_told_by_the_shapes(side: int, base: int, most: int, variant: str) -> None:
    """Where rounding leaves several, they make the same network."""

    def built(**options: Any) -> Generator:
        with shapes_only():
            return Generator((3, side, side), 512, variant=variant, **options)  # type: ignore[arg-type]

    net = built(ch_base=base, ch_max=most)
    found = layouts3.settings(net.state_dict(), (side, side))
    assert found["model.variant"] == variant
    again = built(ch_base=found["model.ch_base"], ch_max=found["model.ch_max"])
    assert [t.shape for t in again.state_dict().values()] == [t.shape for t in net.state_dict().values()]
    if base in fitting.BASES:
        words = [f"dataset.size={side}", *(["model.variant=R"] if variant == "R" else [])]
        assert fitting.words(found, "stylegan3") == [*words, f"model.ch_base={base}"]
