"""Frozen blocks for fine-tuning: a network's first blocks keep the weights that they start with.

Mo et al. 2020 ("Freeze the discriminator") freeze the layers of D nearest the image. A network offers this with one
method, `freezable` (`Freezable`). A frozen block never changes: its parameters are in no optimizer, its batch norms use
and keep their running statistics, and its other buffers (vectors of spectral norm, moving averages) are not updated.
Gradients pass through it, and what has no state (dropout, noise) works as in training.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from torch import nn

from gancli.errors import CombinationError, ConfigError

Block = Sequence[nn.Module | nn.Parameter | None]

_MARK = "is_frozen"  # an attribute of modules in frozen blocks; copies have it, too


@runtime_checkable
class Freezable(Protocol):
    """A network whose blocks have an order."""

    def freezable(self) -> Sequence[Block]:
        """The blocks in the order of the forward pass: from the image in D, from the latent or the input in G.

        A block is its modules and parameters; None is ignored. What makes the logit or the image is in no block, so
        that something is left to train. A part that several blocks use, such as an embedding of the labels, is in the
        first of them.
        """
        ...


def each(modules: Iterable[nn.Module]) -> list[Block]:
    """Modules as blocks of one each."""
    return [[module] for module in modules]


def in_blocks(layers: Iterable[nn.Module]) -> list[Block]:
    """Consecutive layers as blocks, of which each begins with a layer that has a matrix or kernels.

    >>> layers = [nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2)]
    >>> [[type(layer).__name__ for layer in block] for block in in_blocks(layers)]
    [['Flatten', 'Linear', 'BatchNorm1d', 'ReLU'], ['Linear']]
    """
    found, before = list[list[nn.Module]](), list[nn.Module]()
    for layer in layers:
        if any(p.dim() > 1 for p in layer.parameters()):
            found.append([*before, layer])
            before = []
        else:
            (found[-1] if found else before).append(layer)
    return list[Block](found)


def freeze(net: nn.Module, count: int, key: str) -> None:
    """Freeze the first `count` blocks of a network; key: of the configuration.

    Raises CombinationError for a network without blocks, ConfigError for one with fewer.
    """
    blocks = blocks_of(net, count, key)
    if count > len(blocks):
        names = "; ".join(", ".join(names_of(net, block)) for block in blocks)
        raise ConfigError(f"{key}={count}: this network has {len(blocks)} blocks ({names}): set 0 to {len(blocks)}")
    for part in (part for block in blocks[:count] for part in block):
        for module in part.modules() if isinstance(part, nn.Module) else ():
            setattr(module, _MARK, True)
            if next(module.buffers(recurse=False), None) is not None:
                module.training = False  # of this module alone: others, such as dropout, work as in training
        for parameter in [part] if isinstance(part, nn.Parameter) else part.parameters() if part is not None else ():
            parameter.requires_grad_(False)


def blocks_of(net: nn.Module, count: int, key: str) -> Sequence[Block]:
    """The blocks of a network of which `count` are to be frozen. Raises CombinationError if it has none."""
    if isinstance(net, Freezable):
        return net.freezable()
    raise CombinationError(f"{key}={count}: this network does not list its blocks in a method `freezable`: set {key}=0")


def is_frozen(module: nn.Module) -> bool:
    """Whether a module is in a frozen block, so that its buffers must not change."""
    return getattr(module, _MARK, False) is True


def names_of(net: nn.Module, block: Block) -> list[str]:
    """The names in their network of a block's parts that have parameters."""
    named: dict[int, str] = {id(p): name for name, p in net.named_parameters()}
    named |= {id(m): name for name, m in net.named_modules() if next(m.parameters(), None) is not None}
    return [named[id(part)] for part in block if id(part) in named]
