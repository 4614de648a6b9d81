"""Times one SNGAN-32 training cycle against its textbook form: `python -m tests.bench.cycle`.

Both run alternately in this process, from the same weights, spectral-norm vectors, images and latents, with the same
optimizers. Ours is in channels_last; the textbook form is in torch's own default order.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.nets import resnet
from gancli.nets.layers.spectral import advance_spectral
from tests.bench.textbook import TextbookDiscriminator, TextbookGenerator, hold, textbook_cycle

SIZE, LATENT = 32, 128


def our_cycle(
    G: nn.Module,
    D: nn.Module,
    g_optimizer: torch.optim.Optimizer,
    d_optimizer: torch.optim.Optimizer,
    x: Tensor,
    z: Tensor,
) -> None:
    """The same cycle: fakes without a graph, real and fake in one batch, D frozen while G moves."""
    d_optimizer.zero_grad()
    D.requires_grad_(True)
    advance_spectral(D)
    with torch.no_grad():
        fake = G(z[0])
    real_logits, fake_logits = D(torch.cat([x, fake])).logits.chunk(2)
    (F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()).backward()
    d_optimizer.step()
    g_optimizer.zero_grad()
    D.requires_grad_(False)
    (-D(G(z[1])).logits.mean()).backward()
    g_optimizer.step()


def adam(net: nn.Module) -> torch.optim.Optimizer:
    """The SNGAN's optimizer, the fused kernel in both trainers."""
    return torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.0, 0.9), fused=True)


def compare(nets: tuple[nn.Module, nn.Module], x: Tensor, z: Tensor) -> tuple[float, float, float]:
    """How far ours and textbook are apart with their iterations held: the largest of images, logits and gradients.

    The relative difference in float64, and the error of each in float32. There a ReLU whose input is all but 0 may open
    in one form and stay shut in the other, so both are held against float64. A player's gradient is one vector.
    """
    ours, plain = gradients(nets, x, z, torch.float64)
    ours32, plain32 = gradients(nets, x, z, torch.float32)
    return apart(ours, plain), apart(ours32, plain), apart(plain32, plain)


def gradients(nets: tuple[nn.Module, nn.Module], x: Tensor, z: Tensor, dtype: torch.dtype) -> list[list[Tensor]]:
    """Fakes, logits, G's gradient and D's, of our form and of the textbook's."""
    G, D = (copy.deepcopy(net).to(dtype) for net in nets)
    plain = TextbookGenerator(G), TextbookDiscriminator(D)
    hold(plain[1], True)
    found = []
    for g, d in ((G, D), plain):
        G.zero_grad()
        D.zero_grad()
        fake = g(z[0].to(dtype))
        verdicts = [d(images) for images in (fake, x.to(dtype))]
        logits = torch.cat([v if isinstance(v, Tensor) else v.logits for v in verdicts])
        F.softplus(-logits).sum().backward()
        grads = [torch.cat([p.grad.flatten() for p in net.parameters()]) for net in (G, D)]
        found.append([fake.detach(), logits.detach(), *grads])
    return found


def apart(a: list[Tensor], b: list[Tensor]) -> float:
    """The largest relative distance of two lists of tensors."""
    return max(float((p - q).norm() / q.norm()) for p, q in zip(a, b, strict=True))


def measure(repeats: int, batch: int, channels_last: bool = True) -> dict[str, float]:
    """Median seconds of both cycles, the median ratio, and the difference of outputs and gradients."""
    torch.manual_seed(0)
    shape = (3, SIZE, SIZE)
    ours = resnet.Generator(shape, LATENT), resnet.Discriminator(shape)
    bases = copy.deepcopy(ours[0]), copy.deepcopy(ours[1])
    usual = TextbookGenerator(bases[0]), TextbookDiscriminator(bases[1])
    if channels_last:
        ours = tuple(net.to(memory_format=torch.channels_last) for net in ours)
    x, z = torch.rand(batch, *shape) * 2 - 1, torch.randn(2, batch, LATENT)
    exact, ours32, textbook32 = compare(ours, x, z)

    def trainer(cycle: Callable[..., None], nets: tuple[nn.Module, nn.Module]) -> Callable[[], float]:
        optimizers = [adam(net) for net in nets]

        def run() -> float:
            began = time.perf_counter()
            cycle(*nets, *optimizers, x, z)
            return time.perf_counter() - began

        return run

    run_ours, run_usual = trainer(our_cycle, ours), trainer(textbook_cycle, usual)
    for _ in range(2):
        run_ours(), run_usual()
    pairs = [(run_ours(), run_usual()) for _ in range(repeats)]
    fast, slow = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    return {"ours": fast, "textbook": slow, "ratio": ratio, "exact": exact, "ours32": ours32, "textbook32": textbook32}


def main() -> None:
    """Measure, print, and fail where the two are not the same function."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--contiguous", action="store_true", help="ours in the contiguous format, too")
    parser.add_argument("--threads", type=int, help="fewer threads than cores where other programs are busy, too")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    found = measure(args.repeats, args.batch, not args.contiguous)
    print(f"SNGAN-32, batch {args.batch}, one D and one G step: ours {found['ours'] * 1e3:.0f} ms, ", end="")
    print(f"textbook {found['textbook'] * 1e3:.0f} ms, {found['ratio']:.2f} times faster (median of {args.repeats})")
    print(f"images, logits and gradients, iterations held: {found['exact']:.0e} apart in float64; ", end="")
    print(f"error of float32: ours {found['ours32']:.0e}, textbook {found['textbook32']:.0e}")
    if found["exact"] > 1e-4 or found["ours32"] > 3 * found["textbook32"]:
        raise SystemExit("ours and textbook are not the same function")


if __name__ == "__main__":
    main()
