"""Losses of both sides of one critic, for games that pass it finished columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gancli.compute.rng import Rng
from gancli.games.critic import Columns, Critic
from gancli.games.game import Outcome


def discriminator_side(
    critic: Critic, rng: Rng, *, real: Columns, fake: Columns, weight: float = 1.0, **told: Any
) -> Outcome:
    """D's losses (the objective and the direction's times `weight`) and statistics. told: as for `Critic.context`."""
    verdicts = critic.judge(rng, real=real, fake=fake)
    losses = critic.discriminator_losses(verdicts, rng, real=real, fake=fake)
    weighted = (f"loss_{critic.name}", f"direction_{critic.name}")
    losses |= {name: weight * losses[name] for name in weighted if name in losses}
    losses |= critic.due("discriminator", critic.context(rng, verdicts, real=real, fake=fake, **told))
    return Outcome(losses, critic.stats(verdicts))


def generator_side(critic: Critic, rng: Rng, *, real: Columns | None, fake: Columns, **told: Any) -> dict[str, Tensor]:
    """G's losses; `real` is used only if the critic compares (`Critic.compares`). told: as above."""
    verdicts = critic.judge(rng, fake=fake)
    if not critic.compares():
        losses = critic.generator_losses(verdicts, fake=fake)
        return losses | critic.due("generator", critic.context(rng, verdicts, fake=fake, **told))
    assert real is not None
    with torch.no_grad():  # D's output for real images does not depend on G
        verdicts |= critic.judge(rng, real=real)
    losses = critic.generator_losses(verdicts, real=real, fake=fake)
    return losses | critic.due("generator", critic.context(rng, verdicts, real=real, fake=fake, **told))


def mixes(net: nn.Module) -> bool:
    """Whether a network's output for a row depends on the other rows."""
    return any(isinstance(module, _BatchNorm) for module in net.modules())


def together(net: nn.Module, sources: Mapping[str, Tensor], apart: bool) -> dict[str, Tensor]:
    """Apply a network to several sources of images: in one pass, unless `apart` is set or the shapes differ."""
    kinds = {tuple(x.shape[1:]) for x in sources.values()}
    if apart or len(kinds) > 1:
        return {name: net(x) for name, x in sources.items()}
    parts: Tensor = net(torch.cat(list(sources.values()))) if len(sources) > 1 else net(next(iter(sources.values())))
    return dict(zip(sources, torch.split(parts, [len(x) for x in sources.values()]), strict=True))
