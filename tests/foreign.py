"""StyleGAN 2 as two other code bases write it: small state dicts by their names, and what networks of them compute.

Nothing here uses the package: every sample has its own convolution, and filters act between inserted zeros.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]
EPS = 1e-8


def line() -> Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64)
    return taps[:, None] * taps / 64


def drawn(seed: int) -> Callable[..., Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return lambda *shape, by=1.0: torch.randn(shape, generator=rng) * by


# -- state dicts -------------------------------------------------------------------------------------------------------


def rosinality_g(widths: Sequence[int], w: int, layers: int, seed: int = 0) -> State:
    new, found = drawn(seed), State()
    for i in range(1, layers + 1):
        found |= {f"style.{i}.weight": new(w, w, by=100), f"style.{i}.bias": new(w, by=50)}
    found["input.input"] = new(1, widths[0], 4, 4)

    def styled(name: str, inputs: int, outputs: int) -> None:
        found[f"{name}.conv.weight"] = new(1, outputs, inputs, 3, 3)
        found[f"{name}.conv.modulation.weight"] = new(inputs, w)
        found[f"{name}.conv.modulation.bias"] = 1 + new(inputs, by=0.3)
        found[f"{name}.noise.weight"] = new(1)
        found[f"{name}.activate.bias"] = new(outputs)

    def image(name: str, inputs: int) -> None:
        found[f"{name}.conv.weight"] = new(1, 3, inputs, 1, 1)
        found[f"{name}.conv.modulation.weight"] = new(inputs, w)
        found[f"{name}.conv.modulation.bias"] = 1 + new(inputs, by=0.3)
        found[f"{name}.bias"] = new(1, 3, 1, 1)

    styled("conv1", widths[0], widths[0])
    image("to_rgb1", widths[0])
    for k in range(1, len(widths)):
        styled(f"convs.{2 * k - 2}", widths[k - 1], widths[k])
        styled(f"convs.{2 * k - 1}", widths[k], widths[k])
        image(f"to_rgbs.{k - 1}", widths[k])
        for name in (f"convs.{2 * k - 2}.conv.blur.kernel", f"to_rgbs.{k - 1}.upsample.kernel"):
            found[name] = (line() * 4).float()
    for i in range(2 * len(widths) - 1):
        side = 4 << (i + 1) // 2
        found[f"noises.noise_{i}"] = new(1, 1, side, side)
    return found


def rosinality_d(widths: Sequence[int], seed: int = 1) -> State:
    new, last = drawn(seed), len(widths) - 1
    found = {"convs.0.0.weight": new(widths[-1], 3, 1, 1), "convs.0.1.bias": new(widths[-1])}
    for i in range(1, last + 1):
        a, b = widths[last - i + 1], widths[last - i]
        found |= {f"convs.{i}.conv1.0.weight": new(a, a, 3, 3), f"convs.{i}.conv1.1.bias": new(a)}
        found |= {f"convs.{i}.conv2.1.weight": new(b, a, 3, 3), f"convs.{i}.conv2.2.bias": new(b)}
        found |= {f"convs.{i}.skip.1.weight": new(b, a, 1, 1)}
        found |= {f"convs.{i}.{name}.0.kernel": line().float() for name in ("conv2", "skip")}
    width = widths[0]
    found |= {"final_conv.0.weight": new(width, width + 1, 3, 3), "final_conv.1.bias": new(width)}
    found |= {"final_linear.0.weight": new(width, width * 16), "final_linear.0.bias": new(width)}
    return found | {"final_linear.1.weight": new(1, width), "final_linear.1.bias": new(1)}


def nvidia_g(
    widths: Sequence[int], z: int, w: int, layers: int, channels: int = 3, labels: int = 0, seed: int = 2
) -> State:
    new, found = drawn(seed), State()
    if labels:
        found |= {"mapping.embed.weight": new(w, labels), "mapping.embed.bias": new(w)}
    for i in range(layers):
        inputs = w if i else z + (w if labels else 0)
        found |= {f"mapping.fc{i}.weight": new(w, inputs, by=100), f"mapping.fc{i}.bias": new(w, by=50)}
    found |= {"mapping.w_avg": new(w), "synthesis.b4.const": new(widths[0], 4, 4)}
    for k, width in enumerate(widths):
        block, side = f"synthesis.b{4 << k}", 4 << k
        found[f"{block}.resample_filter"] = line().float()
        for name, inputs in ((("conv0", widths[k - 1]),) if k else ()) + (("conv1", width), ("torgb", width)):
            conv = name != "torgb"
            found[f"{block}.{name}.weight"] = new(width, inputs, 3, 3) if conv else new(channels, inputs, 1, 1)
            found[f"{block}.{name}.bias"] = new(width if conv else channels)
            found[f"{block}.{name}.affine.weight"] = new(inputs, w)
            found[f"{block}.{name}.affine.bias"] = 1 + new(inputs, by=0.3)
            if conv:
                found[f"{block}.{name}.noise_strength"] = new()
                found[f"{block}.{name}.noise_const"] = new(side, side)
                found[f"{block}.{name}.resample_filter"] = line().float()
    return found


def nvidia_d(widths: Sequence[int], architecture: str, channels: int = 3, labels: int = 0, seed: int = 3) -> State:
    new, found, last = drawn(seed), State(), len(widths) - 1

    def conv(name: str, inputs: int, outputs: int, kernel: int, bias: bool = True) -> None:
        found[f"{name}.weight"] = new(outputs, inputs, kernel, kernel)
        found[f"{name}.resample_filter"] = line().float()
        if bias:
            found[f"{name}.bias"] = new(outputs)

    for k in range(last, -1, -1):
        block = f"b{4 << k}"
        if k == last or architecture == "skip":
            conv(f"{block}.fromrgb", channels, widths[k], 1)
        if k:
            conv(f"{block}.conv0", widths[k], widths[k], 3)
            conv(f"{block}.conv1", widths[k], widths[k - 1], 3)
        if k and architecture == "resnet":
            conv(f"{block}.skip", widths[k], widths[k - 1], 1, bias=False)
    width = widths[0]
    conv("b4.conv", width + 1, width, 3)
    found |= {"b4.fc.weight": new(width, width * 16), "b4.fc.bias": new(width)}
    outputs = width if labels else 1
    found |= {"b4.out.weight": new(outputs, width), "b4.out.bias": new(outputs)}
    if labels:
        found |= {"mapping.embed.weight": new(width, labels), "mapping.embed.bias": new(width)}
        for i in range(2):
            found |= {f"mapping.fc{i}.weight": new(width, width, by=100), f"mapping.fc{i}.bias": new(width, by=50)}
    return found


# -- what they compute -------------------------------------------------------------------------------------------------


def bent(x: Tensor) -> Tensor:
    return torch.where(x < 0, x * 0.2, x) * math.sqrt(2)


def normal(x: Tensor) -> Tensor:
    return x / (x.square().mean(1, keepdim=True) + EPS).sqrt()


def dense(s: State, name: str, x: Tensor, rate: float = 1.0) -> Tensor:
    weight = s[f"{name}.weight"]
    return x @ (weight * (rate / math.sqrt(weight.shape[1]))).T + s[f"{name}.bias"] * rate


def apart(x: Tensor) -> Tensor:
    """Zeros after every pixel."""
    b, c, h, w = x.shape
    found = x.new_zeros(b, c, 2 * h, 2 * w)
    found[:, :, ::2, ::2] = x
    return found


def filtered(x: Tensor, before: int, after: int, gain: float = 1.0) -> Tensor:
    x = F.pad(x, [before, after, before, after])
    kernel = (line() * gain).flip(0, 1)[None, None]
    return torch.cat([F.conv2d(x[:, k : k + 1], kernel) for k in range(x.shape[1])], 1)


def modulated(x: Tensor, weight: Tensor, style: Tensor, eps: float, up: bool) -> Tensor:
    """One convolution for each sample. eps: of the demodulation; 0: none."""
    made = []
    for row, own in zip(x, style, strict=True):
        kernel = weight * own[None, :, None, None]
        if eps:
            kernel = kernel / (kernel.square().sum((1, 2, 3), keepdim=True) + eps).sqrt()
        if up:
            spread = F.pad(apart(row[None])[:, :, :-1, :-1], [2] * 4)
            made.append(filtered(F.conv2d(spread, kernel.flip(2, 3)), 1, 1, 4.0))
        else:
            made.append(F.conv2d(row[None], kernel, padding=weight.shape[2] // 2))
    return torch.cat(made)


def generated(s: State, w: Tensor, maps: Sequence[Tensor], eps: float = EPS) -> Tensor:
    """Images of either code base, of styles [B, layers, w]. eps: rosinality's acts on weights that are scaled."""
    rosinality = "input.input" in s
    sides = len(maps) // 2
    x = (s["input.input"][0] if rosinality else s["synthesis.b4.const"]).expand(len(w), -1, -1, -1)
    image, layer = None, 0
    for k in range(sides + 1):
        if rosinality:
            names = [f"convs.{2 * k - 2}", f"convs.{2 * k - 1}"] if k else ["conv1"]
            rgb = f"to_rgbs.{k - 1}" if k else "to_rgb1"
        else:
            names = [f"synthesis.b{4 << k}.{name}" for name in (["conv0"] if k else []) + ["conv1"]]
            rgb = f"synthesis.b{4 << k}.torgb"
        affine, weight = ("conv.modulation", "conv.weight") if rosinality else ("affine", "weight")
        for name in names:
            kernel = s[f"{name}.{weight}"].reshape(s[f"{name}.{weight}"].shape[-4:])
            style = dense(s, f"{name}.{affine}", w[:, layer])
            scale = 1 / math.sqrt(kernel[0].numel()) if rosinality else 1.0
            x = modulated(x, kernel * scale, style, eps, up=name != names[-1])
            strength, bias = ("noise.weight", "activate.bias") if rosinality else ("noise_strength", "bias")
            x = bent(x + s[f"{name}.{strength}"] * maps[layer] + s[f"{name}.{bias}"][:, None, None])
            layer += 1
        kernel = s[f"{rgb}.{weight}"].reshape(s[f"{rgb}.{weight}"].shape[-4:])
        style = dense(s, f"{rgb}.{affine}", w[:, layer]) / math.sqrt(kernel.shape[1])
        made = modulated(x, kernel, style, 0.0, up=False) + s[f"{rgb}.bias"].reshape(-1, 1, 1)
        image = made if image is None else filtered(apart(image), 2, 1, 4.0) + made
    assert image is not None
    return image


def mapped(s: State, z: Tensor | None, y: Tensor | None = None) -> Tensor:
    """Styles [B, w] of latents and one-hot labels, either of which may be missing."""
    parts = [] if z is None else [normal(z)]
    parts += [] if y is None else [normal(dense(s, "mapping.embed", y))]
    x, prefix = torch.cat(parts, 1), "style." if "input.input" in s else "mapping.fc"
    for i in range(100):
        if f"{prefix}{i}.weight" in s:
            x = bent(dense(s, f"{prefix}{i}", x, 0.01))
    return x


def judged(s: State, x: Tensor, y: Tensor | None, architecture: str, group: int) -> Tensor:
    """Logits [B] of either code base. y: one-hot labels."""
    rosinality = "final_conv.0.weight" in s

    def conv(name: str, x: Tensor, down: bool = False) -> Tensor:
        weight = s[f"{name}.weight"]
        scaled, width = weight / math.sqrt(weight[0].numel()), weight.shape[2]
        if not down:
            return F.conv2d(x, scaled, padding=width // 2)
        return F.conv2d(filtered(x, 2, 2) if width == 3 else filtered(x, 1, 1), scaled)[:, :, ::2, ::2]

    def added(name: str, x: Tensor) -> Tensor:
        return bent(x + s[f"{name}.bias"][:, None, None])

    def layer(at: str, x: Tensor) -> Tensor:
        return added(f"{at}.1" if rosinality else at, conv(f"{at}.0" if rosinality else at, x))

    last = round(math.log2(x.shape[2])) - 2
    image, features = x, layer("convs.0" if rosinality else f"b{4 << last}.fromrgb", x)
    for k in range(last, 0, -1):
        at = f"convs.{last - k + 1}" if rosinality else f"b{4 << k}"
        first, second, skip = ("conv1", "conv2", "skip.1") if rosinality else ("conv0", "conv1", "skip")
        inner = layer(f"{at}.{first}", features)
        weight, bias = (f"{at}.{second}.1", f"{at}.{second}.2") if rosinality else (f"{at}.{second}",) * 2
        out = added(bias, conv(weight, inner, down=True))
        features = (out + conv(f"{at}.{skip}", features, down=True)) / math.sqrt(2) if architecture == "resnet" else out
        if architecture == "skip":
            image = filtered(image, 1, 1)[:, :, ::2, ::2]
            features = features + layer(f"b{2 << k}.fromrgb", image)
    groups = features.reshape(group, -1, *features.shape[1:])
    deviation = (groups.var(0, correction=0) + EPS).sqrt().mean((1, 2, 3)).repeat(group)
    features = torch.cat([features, deviation[:, None, None, None].expand(-1, 1, 4, 4)], 1)
    features = layer("final_conv" if rosinality else "b4.conv", features).flatten(1)
    out = bent(dense(s, "final_linear.0" if rosinality else "b4.fc", features))
    out = dense(s, "final_linear.1" if rosinality else "b4.out", out)
    if y is not None:
        out = (out * mapped(s, None, y)).sum(1, keepdim=True) / math.sqrt(out.shape[1])
    return out[:, 0]
