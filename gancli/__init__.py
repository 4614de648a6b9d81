"""gan: an experiment runner for generative adversarial networks.

`gan train|sample|eval|interpolate` on the command line; `gancli.load(run)` for a trained generator in Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gancli.version import __version__ as __version__

if TYPE_CHECKING:
    from gancli.draw.sampling import Sampler


def load(run: str = "last", checkpoint: int | str = "last", **options: Any) -> Sampler:
    """A run's generator, ready to sample: `gancli.load("last").samples(n=64, seed=0)` yields uint8 [b, C, H, W].

    run: a run directory, a checkpoint file, or "last". checkpoint: "last", "best" or a step. options: ema, truncation,
    standing_stats, direction, compute. Raises RunError.
    """
    from gancli.draw.reading import load as load_sampler

    return load_sampler(str(run), checkpoint, **options)
