"""A network of one of our own runs, frozen: a first stage, a pre-trained generator, a D to look through."""

from __future__ import annotations

from torch.nn.modules.batchnorm import _BatchNorm

from gancli.data.facts import DataFacts
from gancli.errors import ConfigError, GanError, RunError
from gancli.pretrained.pretrained import Pretrained
from gancli.store.networks import read_network, refuse_shapes
from gancli.train import assemble


def stored(source: str | None = None, ema: bool = False, where: str = "pretrained") -> Pretrained:
    """The network that `run:PATH#NAME` names, called as its own run calls it, in evaluation mode.

    ema: its averaged weights, where there are some. It is known by its checkpoint's SHA-256. where: the group that
    asks. Raises ConfigError for another form, RunError for a run that is missing, damaged, or does not fit its own
    configuration; shapes are compared before memory is taken for them.
    """
    key = f"{where}.source"
    if source is None:
        raise ConfigError(f"missing key {key}: type {key}=run:PATH#NAME, such as run:last#G")
    held = read_network(source, key, averaged=ema)
    if ema and not held.averaged:
        raise RunError(f"{key}={source}: this run keeps no averaged {held.name}: type {where}.ema=false")
    try:
        facts = DataFacts.read(held.data)
        own = assemble.promised(held.config, held.pretrained)
        shapes = assemble.game(held.config, facts, real=(), pretrained=own).nets[held.name]
        refuse_shapes(shapes.state_dict(), held, f"{key}={source}")
        net = assemble.game(held.config, facts, real=(held.name,), pretrained=own).nets[held.name]
        net.load_state_dict(held.state)
    except GanError:
        raise
    except Exception as error:  # all of it comes from the file: whatever goes wrong is the file's doing
        words = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise RunError(f"{held.file} does not fit its own configuration: {words or type(error).__name__}") from None
    mixed = held.averaged and any(isinstance(module, _BatchNorm) for module in net.modules())
    notes = (
        [f"{where}.ema=true: averaged weights, with batch norm's running statistics of the raw ones"] if mixed else []
    )
    return Pretrained(f"run#{held.name}", net, 0, held.sha256, prepare=None, notes=notes, where=where)
