"""Standing statistics: re-estimates batch-norm statistics of generators for their current weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gancli.compute.device import Compute
from gancli.compute.rng import Rng
from gancli.games.game import Game, draws_freely
from gancli.nets.freezing import is_frozen
from gancli.nets.layers.noise import keyed
from gancli.nets.layers.norms import share_statistics


@torch.no_grad()
def with_standing_statistics(
    game: Game, nets: Mapping[str, nn.Module], compute: Compute, passes: int, batch: int = 64
) -> dict[str, nn.Module]:
    """Return the networks, the generators as copies in evaluation mode.

    Batch norms of the copies have the mean statistics of `passes` batches of latents. Running statistics belong to
    the raw weights they were collected with; averaged weights need their own (Brock et al. 2019, appendix D). If
    samples are made from data, or passes = 0, the statistics stay unchanged; those of frozen blocks always do.
    """
    found = dict(nets)
    norms: list[_BatchNorm] = []
    for name in game.generators():
        net = copy.deepcopy(nets[name]).eval()
        share_statistics(net, False)  # with several ranks, possibly only this one runs the code
        found[name] = net
        norms += [module for module in net.modules() if isinstance(module, _BatchNorm) and not is_frozen(module)]
    _estimate(game, found, norms, compute, passes, batch)
    for name in game.generators():
        found[name].eval()
    return found


@torch.no_grad()
def frozen_statistics(game: Game, compute: Compute, passes: int = 16, batch: int = 64) -> dict[str, dict[str, Tensor]]:
    """Return, for each generator, the running statistics that batch norms in its frozen blocks have with its weights.

    By the names of their buffers; {} for generators without such norms, or if samples are made from data.
    """
    nets = {name: copy.deepcopy(game.nets[name]).eval() for name in game.generators()}
    found: dict[str, dict[str, Tensor]] = {}
    norms: list[_BatchNorm] = []
    for name, net in nets.items():
        share_statistics(net, False)
        own = {key: m for key, m in net.named_modules() if isinstance(m, _BatchNorm) and is_frozen(m)}
        norms += own.values()
        found[name] = {f"{key}.{buffer}": value for key, m in own.items() for buffer, value in m.named_buffers()}
    _estimate(game, nets, norms, compute, passes, batch)
    return found


def _estimate(
    game: Game, nets: Mapping[str, nn.Module], norms: Sequence[_BatchNorm], compute: Compute, passes: int, batch: int
) -> None:
    """Replace the running statistics of batch norms by the mean of those of `passes` batches of latents."""
    directions = [direction for direction in game.directions() if draws_freely(game, direction)]
    if not norms or not passes or not directions:
        return
    for module in norms:
        module.reset_running_stats()
        module.momentum = None  # in torch: the cumulative mean over all passes
        module.train()
    for k in range(passes):
        for direction in directions:
            noise = Rng("standing statistics", k, total=batch, device=compute.device)
            with keyed(nets, noise):  # so that these statistics are the same whenever they are estimated
                game.generate(nets, game.inputs(noise, {}, direction), direction)
