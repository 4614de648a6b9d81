"""Checks that a critic's parts are compatible."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gancli.augment.ada import Ada
from gancli.errors import CombinationError
from gancli.losses.adversarial import Energy
from gancli.nets.layers.direction import has_direction
from gancli.nets.layers.image_norms import ImageBatchNorm2d
from gancli.nets.layers.spectral import is_spectral

if TYPE_CHECKING:
    from gancli.games.critic import Critic


def refuse(critic: Critic, latents: bool, lazy: bool, styles: bool) -> None:
    """Raise CombinationError if parts of a critic are incompatible; latents, lazy, styles: as in `Critic`."""
    loss, penalties, augment = critic.loss, critic.penalties, critic.augment
    spectral = any(is_spectral(m) for m in critic.net.modules())
    if loss.lipschitz and not spectral and not any(p.lipschitz and p.weight for p in penalties.values()):
        raise CombinationError(
            "loss=wasserstein needs a critic whose slope is bounded, and nothing bounds this one's:"
            " add penalty=wgan_gp, penalty=r1 or penalty=clip, or use a D with spectral norm (model=sngan)"
        )
    if not critic.adversarial and not any(p.side == "generator" and p.weight for p in penalties.values()):
        raise CombinationError(
            f"game.adversarial=0 leaves {critic.generator} without a loss: set game.adversarial=1,"
            " or add penalty=feature_matching"
        )
    if critic.pack > 1 and critic.labelled:
        raise CombinationError(
            f"game.pack={critic.pack} joins samples of different classes, but this model is class-conditional:"
            " set game.pack=1 or model.conditioning=none"
        )
    if loss.beyond_logits and (loss.flip or loss.top < 1):
        raise CombinationError(
            "loss.flip and loss.top swap and select logits, but this objective uses more than the logits:"
            " set loss.flip=0 loss.top=1"
        )
    if loss.beyond_logits and has_direction(critic.net):
        raise CombinationError(
            f"model.{critic.name}.san=true trains the last layer on logits, but this objective uses more than the"
            f" logits: set model.{critic.name}.san=false, or use another loss"
        )
    if isinstance(loss, Energy) and not loss.plain and not getattr(critic.net, "energy", False):
        raise CombinationError(
            "loss=energy needs a D whose output is an energy, but this D outputs a logit: use model=ebgan,"
            " or set loss.plain=true (the energy is then the softplus of minus the logit)"
        )
    ramps_p = critic.ramp is not None and critic.ramp.augment is not None
    if ramps_p and not (isinstance(augment, Ada) and augment.target is None):
        raise CombinationError(
            "ramp.augment is the last p of augment=ada with a fixed schedule: add augment=ada augment.target=null,"
            " or set ramp.augment=null"
        )
    _refuse_penalties(critic, latents, lazy, styles, spectral)


def _refuse_penalties(critic: Critic, latents: bool, lazy: bool, styles: bool, spectral: bool) -> None:
    """As `refuse`, for the penalties; spectral: whether D has spectral norm."""
    norms = f"model.{critic.name}.norm=auto (layer norm here), layer or none"
    if any(isinstance(m, ImageBatchNorm2d) for m in critic.net.modules()):
        norms = "model.norm=instance"
    for name, penalty in critic.penalties.items():
        if penalty.per_sample and critic.has_batch_norm:
            raise CombinationError(
                f"penalty={name} needs each image's own gradient, but D's batch norm mixes the images of a batch:"
                f" set {norms}"
            )
        if penalty.needs_latents and not latents:
            raise CombinationError(
                f"penalty={name} compares samples of different latents, but this game has no latents: leave it out"
            )
        if penalty.needs_styles and not styles:
            raise CombinationError(
                f"penalty={name} needs a generator with styles and its game: use model=stylegan2 with game=stylegan2,"
                " or leave the penalty out"
            )
        if penalty.every > 1 and not lazy:
            raise CombinationError(
                f"penalty.{name}.every={penalty.every}: this game applies its penalties at every step:"
                f" set penalty.{name}.every=1"
            )
        if penalty.needs_features and penalty.every > 1:
            raise CombinationError(
                f"penalty={name} uses D's features, which the objective computes at every step:"
                f" set penalty.{name}.every=1"
            )
        if penalty.undone_by_spectral and has_direction(critic.net):
            raise CombinationError(
                f"penalty={name} bounds weights, but SAN normalises those of the last layer: use penalty=none or"
                f" penalty=r1, or set model.{critic.name}.san=false"
            )
        if penalty.undone_by_spectral and spectral:
            raise CombinationError(
                f"penalty={name} bounds weights, but spectral norm rescales them, so it has no effect:"
                " use penalty=none, or a D without spectral norm (model=dcgan)"
            )
