"""The networks that draw as one file for others: safetensors (weights and what they are of) or ONNX (the computation).

Of a game with several directions it holds those of one. Either file gets its name only after it was read back and gave
what PyTorch gives here.
"""

from __future__ import annotations

import copy
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from gancli.compute.rng import RowRng
from gancli.data.fields import Image, Label
from gancli.errors import RunError
from gancli.nets.layers.noise import Dropout
from gancli.store.earlier import refuse_earlier
from gancli.store.files import whole_file

if TYPE_CHECKING:
    from gancli.draw.sampling import Sampler
    from gancli.games.game import Game

SUFFIX = ".safetensors"
FORMAT = 1
PARTS = ("model", "game", "loss", "penalty", "augment", "seed", "dataset", "pretrained")  # of the configuration
LARGEST_HEADER = 1 << 24  # bytes of a safetensors header
CLOSE = 1e-4  # between ONNX and PyTorch, in pixels of [-1, 1]
BATCHES = (3, 1, 8)  # of latents: ONNX is tried with each; traced with the first
COARSE = 256  # pixels of a network's multiple from which on one larger size is tried: their pixels grow by its square


def write(sampler: Sampler, kind: str, folder: Path) -> tuple[Path, float]:
    """Write `generator.safetensors` or `generator.onnx`, checked; returns the file and the largest difference seen.

    Raises RunError where an extra is missing, the network cannot be expressed, or the file says something else.
    """
    path = folder / f"generator.{kind}"
    with whole_file(path) as file:
        content = _safetensors(sampler) if kind == "safetensors" else _onnx(sampler)
        worst = _check_safetensors(sampler, content) if kind == "safetensors" else _check_onnx(sampler, content)
        file.write(content)
    return path, worst


def about(sampler: Sampler) -> dict[str, Any]:
    """What a file says of the generator beside its weights: enough to build it again, as plain values."""
    return {
        "format": FORMAT,
        "step": sampler.step,
        "seen": sampler.about.get("seen", 0),
        "ema": sampler.about.get("ema", False),
        "standing_stats": sampler.about.get("standing_stats", 0),
        **({"direction": sampler.direction} if sampler.direction else {}),
        "nets": list(sampler.game.drawing(sampler.direction)),
        "config": {k: sampler.config[k] for k in PARTS if k in sampler.config},
        "data": sampler.facts.plain(),
        "pretrained": None if sampler.game.pretrained is None else sampler.game.pretrained.facts.plain(),
    }


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
        if told["format"] != FORMAT or not isinstance(told["config"], dict):
            raise ValueError("another format")
        nets = told["nets"]
        if not isinstance(nets, list) or not nets or not all(type(name) is str for name in nets):
            raise ValueError("no networks")
        numbers = {name: told[name] for name in ("step", "seen", "standing_stats")}
        if any(type(n) is not int or n < 0 for n in numbers.values()) or type(told["ema"]) is not bool:
            raise ValueError("no step")
        if type(told.get("direction", "")) is not str:
            raise ValueError("no direction")
        data = dict(told["data"])
        refuse_earlier(data, path)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError, MemoryError) as error:
        words = " ".join(str(error).split())[:100]
        raise RunError(f"{path} is no generator that gan sample format=safetensors wrote ({words})") from None
    own = {"ema": told["ema"], "standing_stats": told["standing_stats"]}
    numbers |= {"direction": told["direction"]} if told.get("direction") else {}
    numbers |= {} if told.get("pretrained") is None else {"pretrained": told["pretrained"]}
    return numbers | {"config": told["config"], "data": data, "nets": nets, "game": tensors, "ema": {}, "about": own}


def refuse_other(path: Path, state: Mapping[str, Any], ema: bool) -> None:
    """Raise RunError where another generator is asked of an export than the one it holds, and there was another."""
    held = state["about"]
    if held["ema"] != ema and (state["config"]["model"].get("ema") or {}).get("decay"):
        kind = "averaged" if held["ema"] else "raw"
        raise RunError(f"{path} holds the {kind} generator only: type ema={str(held['ema']).lower()}")


def refuse_direction(path: Path, game: Game, nets: Sequence[str], own: str | None, asked: str | None) -> None:
    """Raise RunError where an export lacks networks of the direction asked for. own: the one that it was made for."""
    missing = [name for name in game.drawing(own or "") if name not in nets]
    if missing:
        raise RunError(f"{path} does not fit its own configuration: it lacks {missing[0]}")
    if asked in game.directions() and not set(game.drawing(asked)) <= set(nets):
        raise RunError(f"{path} holds the networks of direction {own} only: type direction={own}, or leave it out")


def _parts(sampler: Sampler) -> dict[str, Tensor]:
    """The tensors of what draws, under the names they have in a game."""
    nets = {name: sampler.nets[name].state_dict() for name in sampler.game.drawing(sampler.direction)}
    return {
        f"nets.{net}.{name}": t.detach().cpu().contiguous() for net, state in nets.items() for name, t in state.items()
    }


def _safetensors(sampler: Sampler) -> bytes:
    need("safetensors")
    from safetensors.torch import save

    own = {
        name: t.clone() for name, t in _parts(sampler).items()
    }  # no two share memory, which the format has no word for
    content: bytes = save(own, metadata={"gan": json.dumps(about(sampler))})
    return content


def _check_safetensors(sampler: Sampler, content: bytes) -> float:
    """Raise RunError unless what was written is read back as the same bits."""
    from safetensors.torch import load

    back, own = load(content), _parts(sampler)
    if back.keys() != own.keys() or not all(torch.equal(back[name], own[name]) for name in own):
        raise RunError("safetensors read back other weights than were written; nothing was kept")
    return 0.0


class _Drawing(nn.Module):
    """The inputs one after another -> samples, as ONNX sees it: without the dropout that is on when a run draws."""

    def __init__(self, sampler: Sampler, names: Sequence[str]):
        super().__init__()
        # In the plain order of memory, and without the products that only pay on this CPU.
        plain = {"memory_format": torch.contiguous_format}
        nets = {
            name: _quiet(sampler.nets[name]).cpu().float().to(**plain)
            for name in sampler.game.drawing(sampler.direction)
        }
        self.nets = nn.ModuleDict(nets)
        self.names, self.column = names, sampler.column
        self.game, self.direction = (sampler.game.generate,), sampler.direction  # in a tuple: the game is no part of it

    def forward(self, *values: Tensor) -> Tensor:
        inputs = dict(zip(self.names, values, strict=True))
        return self.game[0](dict(self.nets.items()), inputs, self.direction)[self.column].contiguous()


def drops(sampler: Sampler) -> bool:
    """Whether dropout is on when samples are made, which ONNX has no seeds for."""
    layers = (m for name in sampler.game.drawing(sampler.direction) for m in sampler.nets[name].modules())
    return any(isinstance(layer, Dropout) and layer.always and layer.p > 0 for layer in layers)


def _quiet(net: nn.Module) -> nn.Module:
    """A copy whose dropout is on in training only."""
    found = copy.deepcopy(net)
    for layer in found.modules():
        if isinstance(layer, Dropout):
            layer.always = False
    return found


def _inputs(sampler: Sampler, rows: int, larger: int = 0) -> dict[str, Tensor]:
    """What samples are drawn from, latents and class numbers, say; on the CPU. Images are noise: no data need be there.

    larger: by how many of the network's steps sides of images are longer, where it takes other sizes, the width twice.
    """
    pairs, given = [(rows, k) for k in range(rows)], dict[str, Tensor]()
    step = larger * (sampler.game.input_multiple(sampler.direction) or 0)
    for name, field in sampler.game.input_fields(sampler.direction).items():
        noise = RowRng([(s, "export", k) for s, k in pairs])
        if isinstance(field, Image):
            channels, height, width = field.shape
            given[name] = noise.uniform(name, channels, height + step, width + 2 * step) * 2 - 1
        elif isinstance(field, Label):
            given[name] = noise.integers(name, len(field.names))
        else:
            given[name] = sampler.rows.take(name, pairs)
    inputs = sampler.inputs(pairs, given)
    return {name: t.float() if t.is_floating_point() else t for name, t in inputs.items()}


def _shapes(sampler: Sampler, inputs: Mapping[str, Tensor]) -> dict[str, dict[int, Any]]:
    """Which sides of each input are free: rows, and height and width of images where the network takes other sizes."""
    rows = {0: torch.export.Dim("batch", min=1)}
    step = sampler.game.input_multiple(sampler.direction)
    if step is None:
        return dict.fromkeys(inputs, rows)
    sides = {2: step * torch.export.Dim("height", min=1), 3: step * torch.export.Dim("width", min=1)}
    fields = sampler.game.input_fields(sampler.direction)
    return {name: rows | sides if isinstance(fields.get(name), Image) else rows for name in inputs}


def _onnx(sampler: Sampler) -> bytes:
    need("onnx")
    inputs = _inputs(sampler, BATCHES[0], larger=1)
    shapes = _shapes(sampler, inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        try:
            program = torch.onnx.export(
                _Drawing(sampler, list(inputs)).eval(), tuple(inputs.values()), dynamo=True, verbose=False,
                optimize=True, input_names=[plain_name(name) for name in inputs],
                output_names=[sampler.field.words.replace(" ", "_")], dynamic_shapes={"values": tuple(shapes.values())},
            )  # fmt: skip
        except Exception as error:  # the exporter raises a dozen kinds, with pages of text
            first = re.sub(r"\x1b\[[0-9;]*m", "", " ".join(str(error).split()))[:200]
            raise RunError(f"format=onnx: this generator cannot be expressed in ONNX ({first})") from None
    assert program is not None
    program.model.metadata_props["gan"] = json.dumps(about(sampler))
    content: bytes = program.model_proto.SerializeToString()
    return content


def plain_name(column: str) -> str:
    """What ONNX calls an input: the column's name without dots.

    >>> plain_name("A.x"), plain_name("z")
    ('A_x', 'z')
    """
    return column.replace(".", "_")


def _trials(multiple: int | None) -> list[tuple[int, int]]:
    """How many rows ONNX is tried with, and how much larger images (`_inputs`): several rows at their own size alone.

    >>> _trials(None), _trials(4)[3:], _trials(512)[3:]
    ([(3, 0), (1, 0), (8, 0)], [(1, 1), (1, 2)], [(1, 1)])
    """
    sizes = () if multiple is None else (1,) if multiple >= COARSE else (1, 2)
    return [(rows, 0) for rows in BATCHES] + [(1, larger) for larger in sizes]


@torch.no_grad()
def _check_onnx(sampler: Sampler, content: bytes) -> float:
    """The largest difference between ONNX Runtime's samples and PyTorch's. Raises RunError where it is too large."""
    import onnxruntime

    worst, ours = 0.0, _Drawing(sampler, list(_inputs(sampler, 1))).eval()
    for rows, larger in _trials(sampler.game.input_multiple(sampler.direction)):
        inputs = _inputs(sampler, rows, larger)
        try:
            session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
            (made,) = session.run(None, {plain_name(name): tensor.numpy() for name, tensor in inputs.items()})
        except Exception as error:  # the runtime's own kinds
            words = " ".join(str(error).split())[:200]
            raise RunError(f"format=onnx: ONNX Runtime does not take what was exported ({words})") from None
        wanted = (ours(*inputs.values()) if drops(sampler) else sampler.generate_here(inputs)[sampler.column]).numpy()
        worst = max(worst, float(np.abs(made - wanted).max())) if made.shape == wanted.shape else float("inf")
    if not worst <= CLOSE:
        said = f"ONNX Runtime's {sampler.field.words} differ by {worst:.2g} from PyTorch's"
        raise RunError(f"format=onnx: {said}; nothing was kept")
    return worst
