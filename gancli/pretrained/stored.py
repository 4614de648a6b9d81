"""A frozen network from a run of this program: a first stage, a pretrained generator, or a D for its features."""

from __future__ import annotations

from torch.nn.modules.batchnorm import _BatchNorm

from gancli.data.facts import DataFacts
from gancli.errors import ConfigError, GanError, RunError
from gancli.pretrained.pretrained import Pretrained
from gancli.store.networks import read_network, refuse_shapes
from gancli.train import assemble


def stored(source: str | None = None, ema: bool = False, where: str = "pretrained") -> Pretrained:
    """Load the network that `run:PATH#NAME` names, in evaluation mode, with the call signature of its own run.

    ema: use its EMA weights, if there are any. Its checkpoint's SHA-256 identifies it. where: the config group that
    requests it. Raises ConfigError for another form, RunError for a run that is missing, damaged, or does not fit its
    own configuration; shapes are compared before memory is allocated for them.
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
    except Exception as error:  # everything comes from the file, so any failure is the file's
        words = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise RunError(f"{held.file} does not fit its own configuration: {words or type(error).__name__}") from None
    mixed = held.averaged and any(isinstance(module, _BatchNorm) for module in net.modules())
    notes = (
        [f"{where}.ema=true: averaged weights, with batch norm's running statistics of the raw ones"] if mixed else []
    )
    return Pretrained(f"run#{held.name}", net, 0, held.sha256, prepare=None, notes=notes, where=where)
