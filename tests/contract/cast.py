"""Every model and every game of conf/, by their files, as small as they go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.nn.modules.batchnorm import _BatchNorm

from gancli.compute.device import Compute
from gancli.config.build import make_as
from gancli.config.compose import compose
from gancli.config.files import groups, overridden
from gancli.config.settings import TrainSettings
from gancli.data.facts import DataFacts
from gancli.errors import GanError
from gancli.train import assemble, checks, streams
from gancli.train.engine import Engine

# A model's tiny widths and a data set that fits it. A model without an entry fails.
TINY = {
    "gan": ["model=gan", "model.G.hidden=[8]", "model.D.hidden=[8]", "dataset=random", "dataset.size=[1,8,8]"],
    "mlp": ["model=mlp", "dataset=random", "dataset.size=[1,8,8]"],
    "dcgan": ["model=dcgan", "model.ch=4", "dataset=random", "dataset.size=[1,8,8]"],
    "sngan": ["model=sngan", "model.ch=4", "dataset=random", "dataset.size=[1,32,32]"],
    "sagan": ["model=sagan", "model.ch=8", "dataset=random", "dataset.size=[1,16,16]"],
    "biggan": ["model=biggan", "model.ch=2", "dataset=random", "dataset.size=[1,16,16]"],
    "r3gan": ["model=r3gan", "model.ch=8", "dataset=random", "dataset.size=[1,16,16]"],
    "ebgan": ["model=ebgan", "model.ch=4", "dataset=random", "dataset.size=[1,8,8]"],
    "improved": ["model=improved", "model.D.hidden=[8,8]", "dataset=random", "dataset.size=[1,8,8]"],
    "pix2pix": ["model=pix2pix", "model.ch=2", "dataset=random", "dataset.size=[1,32,32]"],
    "cyclegan": ["model=cyclegan", "model.ch=2", "model.blocks=1", "dataset=random", "dataset.size=[1,24,24]"],
    "cyclegan_unet": ["model=cyclegan_unet", "model.ch=2", "dataset=random", "dataset.size=[1,32,32]"],
    "biggan_deep": ["model=biggan_deep", "model.ch=4", "dataset=random", "dataset.size=[1,16,16]"],
}
GROWTH = ["game.first=16", "game.fade=16", "game.hold=16", "model.ch_base=64", "model.ch_max=8"]
for grows in ("progan", "stylegan"):
    TINY[grows] = [f"model={grows}", *GROWTH, "model.latent.dim=8", "dataset=random", "dataset.size=[1,16,16]"]
for made in ("stylegan2", "stylegan3"):
    TINY[made] = [
        f"model={made}", *GROWTH[3:], "model.latent.dim=8", "model.D.group=4", "dataset=random",
        "dataset.size=[1,16,16]",
    ]  # fmt: skip
for styled in ("stylegan", "stylegan2", "stylegan3"):
    TINY[styled] += ["model.G.w_dim=8", "model.mapping_layers=2"]
TINY["cogan"] = ["model=cogan", "model.ch_g=16", "model.ch_d=4", "dataset=random", "dataset.size=[1,16,16]"]
TINY["projected"] = [
    "model=projected", "pretrained=random", "model.ch=2", "model.latent.dim=8", "model.D.ch=2",
    "model.D.resolution=64", "dataset=random", "dataset.size=[1,32,32]",
]  # fmt: skip
TINY["fastgan"] = [
    "model=fastgan", "model.ch=4", "model.latent.dim=8", "pretrained=random", "dataset=random",
    "dataset.size=[1,32,32]",
]  # fmt: skip
TINY["improved"] += ["dataset.classes=2", "game.labels=4", "game.adversarial=1"]

# A game that no model takes by itself, with a model that plays it.
BESIDE: dict[str, list[str]] = {}

MODELS, GAMES = groups("train")["model"], groups("train")["game"]
COMMON = ["dataset.n=24", "batch_size=8", "device=cpu"]


def game_of(model: str) -> str:
    """The game that a model takes by itself, by its file or its generator's."""
    chosen = overridden("model", model)
    chosen = overridden("generator", chosen.get("generator", "none")) | chosen
    return str(chosen.get("game", "noise"))


# Every model with its own game, and the other games: all that is in the contract.
CASTS = TINY | BESIDE


def with_common(keys: Sequence[str]) -> list[str]:
    """These keys, and little data, where they do not say how much."""
    typed = {key.partition("=")[0] for key in keys}
    return [*keys, *(key for key in COMMON if key.partition("=")[0] not in typed)]


def config_of(keys: Sequence[str]) -> dict[str, Any]:
    """The configuration of `gan train KEYS`, on little data."""
    return compose("train", with_common(keys))


def engine_of(keys: Sequence[str], double: bool = False, still_norms: bool = False) -> Engine:
    """An engine as `gan train KEYS` would make it. still_norms: batch norms use their running statistics."""
    config = config_of(keys)
    settings = make_as(TrainSettings, config, "")
    checks.check_sections(settings)
    source = streams.data(settings)
    game = assemble.game(config, DataFacts.of(source))
    if double:
        game = game.double()
    for module in game.modules() if still_norms else ():
        if isinstance(module, _BatchNorm):
            module.eval()
    return assemble.engine(settings, source, game, Compute())


def has_batch_norm(engine: Engine) -> bool:
    return any(isinstance(module, _BatchNorm) for module in engine.game.modules())


def tried(keys: Sequence[str], double: bool = False, still_norms: bool = False) -> tuple[Engine | None, str]:
    """As `engine_of`, or what is said where it is refused."""
    try:
        return engine_of(keys, double, still_norms), ""
    except GanError as error:
        return None, str(error)
