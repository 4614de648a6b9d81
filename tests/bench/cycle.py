"""Times a training cycle of SNGAN-32, SAGAN-64 and BigGAN-64 against its textbook form: `python -m tests.bench.cycle`.

Both run alternately in this process, from the same weights, spectral-norm vectors, images and latents, with the same
optimizers. Ours is in channels_last; the textbook form is in torch's own default order. Work is the textbook's
multiplications and additions, so that ours, which needs fewer, may pass the machine's measured peak.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tests.bench.systems import SYSTEMS, System, adam, our_cycle
from tests.bench.textbook import TextbookDiscriminator, TextbookGenerator, hold, textbook_cycle

Nets = tuple[nn.Module, nn.Module]
BAR = 1.5


def compare(nets: Nets, x: Tensor, z: Tensor, y: Tensor | None) -> tuple[float, float]:
    """How far ours and textbook are apart with their iterations held: the largest of images, logits and gradients.

    Relative, in float64 and in float32. A ReLU whose input is all but 0 may open in one form and stay shut in the
    other, which alone makes some 1e-3 of a gradient, so float32 is compared with a smooth function in the ReLUs' place.
    A player's gradient is one vector.
    """
    exact = apart(*gradients(nets, x, z, y, torch.float64))
    with mock.patch.object(F, "relu", lambda input, inplace=False: F.softplus(input)):
        return exact, apart(*gradients(nets, x, z, y, torch.float32))


def gradients(nets: Nets, x: Tensor, z: Tensor, y: Tensor | None, dtype: torch.dtype) -> list[list[Tensor]]:
    """Fakes, logits, G's gradient and D's, of our form and of the textbook's."""
    G, D = (copy.deepcopy(net).to(dtype) for net in nets)
    plain = TextbookGenerator(G), TextbookDiscriminator(D)
    for net in plain:
        hold(net, True)
    found = []
    for g, d in ((G, D), plain):
        G.zero_grad()
        D.zero_grad()
        fake = g(z[0].to(dtype), y)
        verdicts = [d(images, y) for images in (fake, x.to(dtype))]
        logits = torch.cat([v if isinstance(v, Tensor) else v.logits for v in verdicts])
        F.softplus(-logits).sum().backward()
        grads = [torch.cat([p.grad.flatten() for p in net.parameters()]) for net in (G, D)]
        found.append([fake.detach(), logits.detach(), *grads])
    return found


def apart(a: list[Tensor], b: list[Tensor]) -> float:
    """The largest relative distance of two lists of tensors."""
    return max(float((p - q).norm() / q.norm()) for p, q in zip(a, b, strict=True))


def trainer(system: System, rows: int, form: str, channels_last: bool = True) -> Callable[[], float]:
    """A function that runs one cycle of one form and returns its seconds."""
    nets: Nets = system.build()
    if form == "textbook":
        nets, cycle = (TextbookGenerator(nets[0]), TextbookDiscriminator(nets[1])), textbook_cycle
    else:
        cycle = our_cycle
        if channels_last:
            nets = tuple(net.to(memory_format=torch.channels_last) for net in nets)
    batch, optimizers = system.batch(rows), [adam(net) for net in nets]

    def run() -> float:
        began = time.perf_counter()
        cycle(*nets, *optimizers, *batch)
        return time.perf_counter() - began

    return run


def measure(system: System, repeats: int, rows: int, channels_last: bool = True) -> dict[str, float]:
    """Median seconds of both cycles, the median ratio, the textbook's work, and the difference of what they compute."""
    exact, single = compare(system.build(), *system.batch(min(rows, 2)))
    run_ours = trainer(system, rows, "ours", channels_last)
    run_usual = trainer(system, rows, "textbook")
    with FlopCounterMode(display=False) as counter:
        run_usual()
    for _ in range(2):
        run_ours(), run_usual()
    pairs = [(run_ours(), run_usual()) for _ in range(repeats)]
    fast, slow = (statistics.median(column) for column in zip(*pairs, strict=True))
    found = {"ours": fast, "textbook": slow, "ratio": statistics.median(b / a for a, b in pairs)}
    return found | {"work": counter.get_total_flops(), "exact": exact, "single": single}


def convolution_peak() -> float:
    """The most operations a second that plain 3x3 convolutions reach here, forward and backward, in either format."""
    best = 0.0
    for channels, side in ((64, 32), (128, 32), (256, 16)):
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(16, channels, side, side).to(memory_format=layout).requires_grad_(True)
            w = torch.randn(channels, channels, 3, 3).to(memory_format=layout).requires_grad_(True)
            out = F.conv2d(x, w, padding=1)
            for run in (lambda x=x, w=w: F.conv2d(x, w, padding=1), lambda o=out: o.backward(o, retain_graph=True)):
                times = []
                for _ in range(5):
                    began = time.perf_counter()
                    run()
                    times.append(time.perf_counter() - began)
                passes = 1 if run.__defaults__ and len(run.__defaults__) == 2 else 2
                best = max(best, passes * 2 * 9 * out.numel() * channels / min(times))
    return best


def peak_memory(name: str, rows: int, form: str, threads: int) -> float:
    """MiB at the peak of two cycles in a process of its own, weights and optimizers included; 0 where unknown."""
    words = [sys.executable, "-m", "tests.bench.cycle", "--memory", form, "--system", name, "--batch", str(rows)]
    done = subprocess.run([*words, "--threads", str(threads)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def own_peak(system: System, rows: int, form: str) -> float:
    """MiB that this process had at its peak during two cycles: what the kernel counts since a reset."""
    run = trainer(system, rows, form)
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    run(), run()
    return (
        next(
            int(line.split()[1]) for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM")
        )
        / 1024
    )


def report(name: str, args: argparse.Namespace, peak: float) -> bool:
    """Measure one system and print it; whether both forms are the same function."""
    found = measure(SYSTEMS[name], args.repeats, args.batch, not args.contiguous)
    rates = {form: found["work"] / found[form] for form in ("ours", "textbook")}
    memory = {f: peak_memory(name, args.batch, f, torch.get_num_threads()) for f in rates} if args.with_memory else {}
    print(f"{name}, batch {args.batch}, one D and one G step: ours {found['ours'] * 1e3:.0f} ms, ", end="")
    print(f"textbook {found['textbook'] * 1e3:.0f} ms, {found['ratio']:.2f} times faster ", end="")
    print(f"(median of {args.repeats}; the bar is {BAR})")
    print(f"  of the convolution peak, {peak / 1e9:.0f} G/s: ", end="")
    print(", ".join(f"{form} {rate / peak:.0%}" for form, rate in rates.items()) + " in the textbook's operations")
    if memory:
        print("  peak memory: " + ", ".join(f"{form} {mib:,.0f} MiB" for form, mib in memory.items()))
    print(f"  images, logits and gradients, iterations held: {found['exact']:.0e} apart in float64, ", end="")
    print(f"{found['single']:.0e} in float32", flush=True)
    return max(found["exact"], found["single"]) <= 1e-4


def main() -> None:
    """Measure, print, and fail where the two are not the same function."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--system", choices=[*SYSTEMS], help="one of them; all otherwise")
    parser.add_argument("--contiguous", action="store_true", help="ours in the contiguous format, too")
    parser.add_argument("--threads", type=int, help="fewer threads than cores where other programs are busy, too")
    parser.add_argument("--no-memory", dest="with_memory", action="store_false", help="leave peak memory out")
    parser.add_argument("--memory", choices=["ours", "textbook"], help="print one form's peak memory and stop")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.memory:
        print(own_peak(SYSTEMS[args.system], args.batch, args.memory))
        return
    peak = convolution_peak()
    same = [report(name, args, peak) for name in ([args.system] if args.system else SYSTEMS)]
    if not all(same):
        raise SystemExit("ours and textbook are not the same function")


if __name__ == "__main__":
    main()
