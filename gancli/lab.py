"""A Gaussian fitted to a mixture of two under four divergences: `python -m gancli.lab [FILE.png]`.

The divergences are KL(p‖q), KL(q‖p), MMD and JSD, with p the data and q the model, as in Theis et al. 2016, figure 1,
and in Goodfellow's tutorial of 2016, figure 14: KL(p‖q) covers both modes, KL(q‖p) fits one of them.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

MEANS, SIGMAS, SHARES = (-3.0, 3.0), (0.6, 0.8), (0.6, 0.4)
PLACES = torch.linspace(-8.0, 8.0, 801, dtype=torch.float64)
STEP = float(PLACES[1] - PLACES[0])
STARTS = ((-3.0, 0.0), (0.0, 1.0), (3.0, 0.0))  # initial mean and log σ
WIDTH = 1.0  # standard deviation of MMD's kernel
STEPS = 1000  # of Adam, with a learning rate of 0.05


def normal(mean: float | Tensor, sigma: float | Tensor) -> Tensor:
    """Return the density of N(mean, σ²) at PLACES."""
    z = (PLACES - mean) / sigma
    return torch.exp(-z.square() / 2) / (sigma * math.sqrt(2 * math.pi))


def mixture() -> Tensor:
    """Return the data's density at PLACES."""
    return torch.stack([w * normal(m, s) for w, m, s in zip(SHARES, MEANS, SIGMAS, strict=True)]).sum(0)


def kl(p: Tensor, q: Tensor) -> Tensor:
    """Return KL(p‖q) of densities at PLACES, in nats."""
    return (p * (p.clamp_min(1e-300).log() - q.clamp_min(1e-300).log())).sum() * STEP


def jsd(p: Tensor, q: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence of densities at PLACES, in nats."""
    middle = (p + q) / 2
    return (kl(p, middle) + kl(q, middle)) / 2


def mmd(p: Tensor, q: Tensor) -> Tensor:
    """Return the squared maximum mean discrepancy of densities at PLACES, with a Gaussian kernel."""
    # The kernel at all distances from 0: the sum over pairs is a convolution with it.
    kernel = torch.exp(-(PLACES - PLACES[len(PLACES) // 2]).square() / (2 * WIDTH**2)).view(1, 1, -1)
    difference = (p - q) * STEP
    return difference @ torch.nn.functional.conv1d(difference.view(1, 1, -1), kernel, padding="same").flatten()


DIVERGENCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "KL(p||q)": kl,
    "KL(q||p)": lambda p, q: kl(q, p),
    "MMD": mmd,
    "JSD": jsd,
}


def fit(divergence: Callable[[Tensor, Tensor], Tensor]) -> tuple[float, float, float]:
    """Return mean, σ and divergence of the Gaussian with the smallest divergence, from all STARTS."""
    p, found = mixture(), []
    for mean, log_sigma in STARTS:
        at = torch.tensor([mean, log_sigma], dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([at], lr=0.05)
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = divergence(p, normal(at[0], at[1].exp()))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        mean, log_sigma = at.detach().tolist()
        found.append((float(loss.detach()), mean, math.exp(log_sigma)))
    value, mean, sigma = min(found)
    return mean, sigma, value


def main(target: str = "divergences.png") -> None:
    """Print the fits and draw the figure."""
    from gancli.draw.charts import Panel, chart
    from gancli.draw.pictures import save_png

    places, data = PLACES.tolist(), list(zip(PLACES.tolist(), mixture().tolist(), strict=True))
    panels = []
    for name, divergence in DIVERGENCES.items():
        mean, sigma, value = fit(divergence)
        print(f"{name:8} mean {mean:6.3f}  sigma {sigma:.3f}  divergence {value:.4f}")
        model = list(zip(places, normal(mean, sigma).tolist(), strict=True))
        panels.append(Panel(name, {"data": data, "model": model}))
    save_png(Path(target), chart(panels, width=300, height=220))
    print(f"drawn: {target}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m gancli.lab", description=__doc__)
    parser.add_argument("target", nargs="?", default="divergences.png", metavar="FILE.png", help="where to draw it")
    target = parser.parse_args().target
    if Path(target).suffix != ".png":
        parser.error(f"{target}: type a file name that ends with .png")
    main(target)
