"""A trained generator as one file for others: safetensors (weights and what they are of) or ONNX (the network itself).

Either file gets its name only after it was read back and gave what PyTorch gives here.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from gancli.compute.rng import Rng
from gancli.errors import RunError
from gancli.store.earlier import refuse_earlier
from gancli.store.files import whole_file

if TYPE_CHECKING:
    from gancli.draw.sampling import Sampler

SUFFIX = ".safetensors"
FORMAT = 1
LARGEST_HEADER = 1 << 24  # bytes of a safetensors header
CLOSE = 1e-4  # between ONNX and PyTorch, in pixels of [-1, 1]
BATCHES = (3, 1, 8)  # of latents: ONNX is tried with each; traced with the first


def write(found: Sampler, kind: str, folder: Path) -> tuple[Path, float]:
    """Write `generator.safetensors` or `generator.onnx`, checked; returns the file and the largest difference seen.

    Raises RunError where an extra is missing, the network cannot be expressed, or the file says something else.
    """
    path = folder / f"generator.{kind}"
    with whole_file(path) as file:
        content = _safetensors(found) if kind == "safetensors" else _onnx(found)
        worst = _check_safetensors(found, content) if kind == "safetensors" else _check_onnx(found, content)
        file.write(content)
    return path, worst


def about(found: Sampler) -> dict[str, Any]:
    """What a file says of the generator beside its weights: enough to build it again, as plain values."""
    return {
        "format": FORMAT,
        "step": found.step,
        "seen": found.about.get("seen", 0),
        "ema": found.about.get("ema", False),
        "standing_stats": found.about.get("standing_stats", 0),
        "nets": ["G"],
        "config": {k: found.config[k] for k in ("model", "game", "loss", "penalty", "augment", "seed", "dataset")
                   if k in found.config},
        "data": found.facts.plain(),
    }  # fmt: skip


def need(kind: str) -> None:
    """Raise RunError where a format's packages are not installed, with what to type."""
    modules = ("safetensors",) if kind == "safetensors" else ("onnx", "onnxscript", "onnxruntime")
    for name in modules:
        try:
            __import__(name)
        except ImportError:
            raise RunError(f"format={kind} needs {', '.join(modules)}: type pip install 'gancli[export]'") from None


def read(path: Path) -> dict[str, Any]:
    """A safetensors export as the state that `sampling.load` restores. Raises RunError for any other file."""
    need("safetensors")
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > LARGEST_HEADER:
            raise ValueError(f"a header of {header:,} bytes")
        # The library checks every offset and size against the file before it makes room for a tensor.
        with safe_open(path, framework="pt") as file:
            told = json.loads((file.metadata() or {})["gan"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no dict
        if told["format"] != FORMAT or told["nets"] != ["G"] or not isinstance(told["config"], dict):
            raise ValueError("another format")
        numbers = {name: told[name] for name in ("step", "seen", "standing_stats")}
        if any(type(n) is not int or n < 0 for n in numbers.values()) or type(told["ema"]) is not bool:
            raise ValueError("no step")
        data = dict(told["data"])
        refuse_earlier(data, path)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError, MemoryError) as error:
        words = " ".join(str(error).split())[:100]
        raise RunError(f"{path} is no generator that gan sample format=safetensors wrote ({words})") from None
    own = {"ema": told["ema"], "standing_stats": told["standing_stats"]}
    return numbers | {"config": told["config"], "data": data, "nets": ["G"], "game": tensors, "ema": {}, "about": own}


def refuse_other(path: Path, state: Mapping[str, Any], ema: bool, standing_stats: int) -> None:
    """Raise RunError where another generator is asked of an export than the one it holds."""
    held = state["about"]
    if held["ema"] != ema:
        kind = "averaged" if held["ema"] else "raw"
        raise RunError(f"{path} holds the {kind} generator only: type ema={str(held['ema']).lower()}")


def _parts(found: Sampler) -> dict[str, Tensor]:
    """The generator's tensors under the names they have in a game."""
    return {f"nets.G.{name}": t.detach().cpu().contiguous() for name, t in found.nets["G"].state_dict().items()}


def _safetensors(found: Sampler) -> bytes:
    need("safetensors")
    from safetensors.torch import save

    own = {
        name: t.clone() for name, t in _parts(found).items()
    }  # no two share memory, which the format has no word for
    content: bytes = save(own, metadata={"gan": json.dumps(about(found))})
    return content


def _check_safetensors(found: Sampler, content: bytes) -> float:
    """Raise RunError unless what was written is read back as the same bits."""
    from safetensors.torch import load

    back, own = load(content), _parts(found)
    if back.keys() != own.keys() or not all(torch.equal(back[name], own[name]) for name in own):
        raise RunError("safetensors read back other weights than were written; nothing was kept")
    return 0.0


class _Generator(nn.Module):
    """(z, y) -> images, as ONNX sees it; y are class numbers, int64 [B]."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        images: Tensor = self.net(z, y)
        return images.contiguous()


def _inputs(found: Sampler, rows: int) -> dict[str, Tensor]:
    """Latents and, of a conditional generator, class numbers, on the CPU."""
    noise = Rng("export", rows, total=rows)
    inputs = {"z": found.game.latents(noise).float().cpu()}
    return inputs | ({"y": noise.integers("y", found.game.classes)} if found.game.labelled else {})


def _onnx(found: Sampler) -> bytes:
    need("onnx")
    import copy

    # In the plain order of memory, and without the products that only pay on this CPU.
    net = copy.deepcopy(found.nets["G"]).cpu().float().to(memory_format=torch.contiguous_format)
    inputs = _inputs(found, BATCHES[0])
    rows = {name: {0: torch.export.Dim("batch", min=1)} for name in inputs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        try:
            program = torch.onnx.export(
                _Generator(net).eval(), tuple(inputs.values()), dynamo=True, verbose=False, optimize=True,
                input_names=list(inputs), output_names=["images"], dynamic_shapes=rows,
            )  # fmt: skip
        except Exception as error:  # the exporter raises a dozen kinds, with pages of text
            first = re.sub(r"\x1b\[[0-9;]*m", "", " ".join(str(error).split()))[:200]
            raise RunError(f"format=onnx: this generator cannot be expressed in ONNX ({first})") from None
    assert program is not None
    program.model.metadata_props["gan"] = json.dumps(about(found))
    content: bytes = program.model_proto.SerializeToString()
    return content


@torch.no_grad()
def _check_onnx(found: Sampler, content: bytes) -> float:
    """The largest difference between ONNX Runtime's images and PyTorch's. Raises RunError where it is too large."""
    import onnxruntime

    worst = 0.0
    for rows in BATCHES:
        inputs = _inputs(found, rows)
        try:
            session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
            (images,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        except Exception as error:  # the runtime's own kinds
            words = " ".join(str(error).split())[:200]
            raise RunError(f"format=onnx: ONNX Runtime does not take what was exported ({words})") from None
        place = found.compute.device
        y = inputs["y"].to(place) if "y" in inputs else None
        ours = found.game.render(found.nets, inputs["z"].to(place), y).float().cpu().numpy()
        worst = max(worst, float(np.abs(images - ours).max())) if images.shape == ours.shape else float("inf")
    if not worst <= CLOSE:
        raise RunError(f"format=onnx: ONNX Runtime's images differ by {worst:.2g} from PyTorch's; nothing was kept")
    return worst
