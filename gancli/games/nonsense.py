"""Parts of a critic that make no sense together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gancli.augment.ada import Ada
from gancli.errors import CombinationError
from gancli.losses.adversarial import Energy
from gancli.nets.layers.own import ImageBatchNorm2d
from gancli.nets.layers.spectral import is_spectral

if TYPE_CHECKING:
    from gancli.games.critic import Critic


def refuse(critic: Critic, latents: bool, lazy: bool) -> None:
    """Raise CombinationError where the parts make no sense together; latents, lazy: as `Critic` takes them."""
    loss, penalties, augment = critic.loss, critic.penalties, critic.augment
    spectral = any(is_spectral(m) for m in critic.net.modules())
    if loss.lipschitz and not spectral and not any(p.lipschitz and p.weight for p in penalties.values()):
        raise CombinationError(
            "the wasserstein loss needs a critic of bounded slope and nothing bounds this one:"
            " add penalty=wgan_gp, penalty=r1 or penalty=clip, or take a D with spectral norm (model=sngan)"
        )
    if not critic.adversarial and not any(p.side == "generator" and p.weight for p in penalties.values()):
        raise CombinationError(
            f"game.adversarial=0 leaves {critic.generator} without anything to learn: set game.adversarial=1,"
            " or add penalty=feature_matching"
        )
    if critic.pack > 1 and critic.labelled:
        raise CombinationError(
            f"game.pack={critic.pack} joins samples of different classes and this model is told of classes:"
            " set game.pack=1 or model.conditioning=none"
        )
    if loss.beyond_logits and (loss.flip or loss.top < 1):
        raise CombinationError(
            "loss.flip and loss.top exchange and choose logits, and this objective looks at more than these:"
            " set loss.flip=0 loss.top=1"
        )
    if isinstance(loss, Energy) and not loss.plain and not getattr(critic.net, "energy", False):
        raise CombinationError(
            "loss=energy needs a D whose output is an energy, and this one's is any number: take model=ebgan,"
            " or set loss.plain=true (softplus of it is the energy)"
        )
    ramps_p = critic.ramp is not None and critic.ramp.augment is not None
    if ramps_p and not (isinstance(augment, Ada) and augment.target is None):
        raise CombinationError(
            "ramp.augment is where p of augment=ada leads: add augment=ada augment.target=null,"
            " or set ramp.augment=null"
        )
    _refuse_penalties(critic, latents, lazy, spectral)


def _refuse_penalties(critic: Critic, latents: bool, lazy: bool, spectral: bool) -> None:
    """As `refuse`, of the penalties; spectral: whether D has spectral norm."""
    way = f"model.{critic.name}.norm=auto (layer norm here), layer or none"
    if any(isinstance(m, ImageBatchNorm2d) for m in critic.net.modules()):
        way = "model.norm=instance"
    for name, penalty in critic.penalties.items():
        if penalty.per_sample and critic.has_batch_norm:
            raise CombinationError(
                f"penalty={name} looks at each image's own gradient and D's batch norm mixes the images of a batch:"
                f" set {way}"
            )
        if penalty.needs_latents and not latents:
            raise CombinationError(
                f"penalty={name} compares what is made of other latents and this game has none: leave it out"
            )
        if penalty.every > 1 and not lazy:
            raise CombinationError(
                f"penalty.{name}.every={penalty.every}: this game pays its penalties at each step:"
                f" set penalty.{name}.every=1"
            )
        if penalty.needs_features and penalty.every > 1:
            raise CombinationError(
                f"penalty={name} belongs to the objective of each step: leave penalty.{name}.every=1"
            )
        if penalty.undone_by_spectral and spectral:
            raise CombinationError(
                f"penalty={name} bounds weights that spectral norm divides by their size again, so it does nothing:"
                " use penalty=none, or a D without spectral norm (model=dcgan)"
            )
