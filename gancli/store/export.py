"""Export of the sampling networks as one file: safetensors (weights and metadata) or ONNX (the computation).

For a game with several directions, a file holds the networks of one. It gets its name only after it was read back and
gave the same results as PyTorch.
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

from gancli.compute.rng import Rng, RowRng
from gancli.data.fields import Image, Label
from gancli.errors import RunError
from gancli.nets.layers.noise import Dropout, NoiseMap, keyed
from gancli.store.earlier import refuse_earlier
from gancli.store.files import whole_file

if TYPE_CHECKING:
    from gancli.draw.sampling import Sampler
    from gancli.games.game import Game

SUFFIX = ".safetensors"
FORMAT = 1
PARTS = ("model", "game", "loss", "penalty", "augment", "seed", "dataset", "pretrained")  # of the configuration
LARGEST_HEADER = 1 << 24  # bytes of a safetensors header
CLOSE = 1e-4  # largest difference of ONNX from PyTorch, in pixels of [-1, 1]
AMPLIFIED = 4  # or as many times PyTorch's own rounding error, which norms of all but constant channels amplify
BATCHES = (3, 1, 8)  # of latents: ONNX is tested with each, traced with the first
COARSE = 256  # input multiple, in pixels, from which only one larger size is tested, to save time


def write(sampler: Sampler, kind: str, folder: Path) -> tuple[Path, float]:
    """Write `generator.safetensors` or `generator.onnx`, verified; return the file and the largest difference.

    Raises RunError if an extra is missing, the network cannot be expressed, or the file gives other results.
    """
    path = folder / f"generator.{kind}"
    with whole_file(path) as file:
        content = _safetensors(sampler) if kind == "safetensors" else _onnx(sampler)
        worst = _check_safetensors(sampler, content) if kind == "safetensors" else _check_onnx(sampler, content)
        file.write(content)
    return path, worst


def about(sampler: Sampler) -> dict[str, Any]:
    """Return a file's metadata of the generator beside its weights: enough to rebuild it, as plain values."""
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
    """Raise RunError, with the pip command, if a format's packages are not installed."""
    modules = {"safetensors": ("safetensors",), "onnx": ("onnx", "onnxscript", "onnxruntime")}.get(kind, ())
    for name in modules:
        try:
            __import__(name)
        except ImportError:
            raise RunError(f"format={kind} needs {', '.join(modules)}: type pip install 'gancli[export]'") from None


def read(path: Path) -> dict[str, Any]:
    """Read a safetensors export as the state that `sampling.load` restores. Raises RunError for any other file."""
    need("safetensors")
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > LARGEST_HEADER:
            raise ValueError(f"a header of {header:,} bytes")
        # The library checks every offset and size against the file before it allocates a tensor.
        with safe_open(path, framework="pt") as file:
            told = json.loads((file.metadata() or {})["gan"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
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
        raise RunError(f"{path} is not a generator written by gan sample format=safetensors ({words})") from None
    own = {"ema": told["ema"], "standing_stats": told["standing_stats"]}
    numbers |= {"direction": told["direction"]} if told.get("direction") else {}
    numbers |= {} if told.get("pretrained") is None else {"pretrained": told["pretrained"]}
    return numbers | {"config": told["config"], "data": data, "nets": nets, "game": tensors, "ema": {}, "about": own}


def refuse_other(path: Path, state: Mapping[str, Any], ema: bool) -> None:
    """Raise RunError if an export lacks the requested generator, raw or averaged, and the run had it."""
    held = state["about"]
    if held["ema"] != ema and (state["config"]["model"].get("ema") or {"decay": 0}).get("decay") != 0:
        kind = "averaged" if held["ema"] else "raw"
        raise RunError(f"{path} holds the {kind} generator only: type ema={str(held['ema']).lower()}")


def refuse_direction(path: Path, game: Game, nets: Sequence[str], own: str | None, asked: str | None) -> None:
    """Raise RunError if an export lacks networks of the requested direction. own: the direction that it holds."""
    missing = [name for name in game.drawing(own or "") if name not in nets]
    if missing:
        raise RunError(f"{path} does not fit its own configuration: it lacks {missing[0]}")
    if asked in game.directions() and not set(game.drawing(asked)) <= set(nets):
        raise RunError(f"{path} holds the networks of direction {own} only: type direction={own}, or leave it out")


def _parts(sampler: Sampler) -> dict[str, Tensor]:
    """Return the tensors of the sampling networks, under their names in a game."""
    nets = {name: sampler.nets[name].state_dict() for name in sampler.game.drawing(sampler.direction)}
    return {
        f"nets.{net}.{name}": t.detach().cpu().contiguous() for net, state in nets.items() for name, t in state.items()
    }


def _safetensors(sampler: Sampler) -> bytes:
    need("safetensors")
    from safetensors.torch import save

    own = {name: t.clone() for name, t in _parts(sampler).items()}  # cloned: in this format no two may share memory
    content: bytes = save(own, metadata={"gan": json.dumps(about(sampler))})
    return content


def _check_safetensors(sampler: Sampler, content: bytes) -> float:
    """Raise RunError unless the content reads back bit-identical."""
    from safetensors.torch import load

    back, own = load(content), _parts(sampler)
    if back.keys() != own.keys() or not all(torch.equal(back[name], own[name]) for name in own):
        raise RunError("safetensors read back other weights than were written; no file was kept")
    return 0.0


class _Drawing(nn.Module):
    """The inputs in sequence -> samples, as ONNX computes them: without the dropout that is active when sampling."""

    def __init__(self, sampler: Sampler, names: Sequence[str]):
        super().__init__()
        # In contiguous memory format, and without the matrix products that are faster only on this CPU.
        plain = {"memory_format": torch.contiguous_format}
        nets = {
            name: _quiet(sampler.nets[name]).cpu().float().to(**plain)
            for name in sampler.game.drawing(sampler.direction)
        }
        self.nets = nn.ModuleDict(nets)
        self.names, self.column = names, sampler.column
        self.game, self.direction = (sampler.game.generate,), sampler.direction  # a tuple: the game is no submodule
        self._fix_noise(sampler)

    @torch.no_grad()
    def _fix_noise(self, sampler: Sampler) -> None:
        """Give each noise layer one map for all images, which the file then holds."""
        maps = [layer for layer in self.nets.modules() if isinstance(layer, NoiseMap)]
        if maps:
            for layer in maps:
                layer.fixes = True
            with keyed(dict(self.nets.items()), Rng(0, "export", total=1)):
                self(*_inputs(sampler, 1).values())

    def forward(self, *values: Tensor) -> Tensor:
        inputs = dict(zip(self.names, values, strict=True))
        return self.game[0](dict(self.nets.items()), inputs, self.direction)[self.column].contiguous()


def drops(sampler: Sampler) -> bool:
    """Whether dropout is active when sampling; ONNX has no seeds for it."""
    layers = (m for name in sampler.game.drawing(sampler.direction) for m in sampler.nets[name].modules())
    return any(isinstance(layer, Dropout) and layer.always and layer.p > 0 for layer in layers)


def noisy(sampler: Sampler) -> bool:
    """Whether the generator adds noise maps, of which ONNX has fixed ones."""
    nets = (sampler.nets[name] for name in sampler.game.drawing(sampler.direction))
    return any(isinstance(layer, NoiseMap) for net in nets for layer in net.modules())


def _quiet(net: nn.Module) -> nn.Module:
    """Return a copy whose dropout is active in training only."""
    found = copy.deepcopy(net)
    for layer in found.modules():
        if isinstance(layer, Dropout):
            layer.always = False
    return found


def _inputs(sampler: Sampler, rows: int, larger: int = 0) -> dict[str, Tensor]:
    """Return what samples are computed from, such as latents and class numbers, on the CPU. Images are noise: no data.

    larger: by how many of the network's multiples images are taller, if it takes other sizes, and twice that wider.
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
    """Return each input's dynamic sides: rows, and height and width of images if the network takes other sizes."""
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
    """Return ONNX's name of an input: the column's name without dots.

    >>> plain_name("A.x"), plain_name("z")
    ('A_x', 'z')
    """
    return column.replace(".", "_")


def _trials(multiple: int | None) -> list[tuple[int, int]]:
    """Return (rows, larger) of the inputs that ONNX is tested with (`_inputs`): several rows only at the own size.

    >>> _trials(None), _trials(4)[3:], _trials(512)[3:]
    ([(3, 0), (1, 0), (8, 0)], [(1, 1), (1, 2)], [(1, 1)])
    """
    sizes = () if multiple is None else (1,) if multiple >= COARSE else (1, 2)
    return [(rows, 0) for rows in BATCHES] + [(1, larger) for larger in sizes]


@torch.no_grad()
def _check_onnx(sampler: Sampler, content: bytes) -> float:
    """Return the largest difference of ONNX Runtime's samples from PyTorch's. Raises RunError if it is too large."""
    import onnxruntime

    worst, own, ours = 0.0, 0.0, _Drawing(sampler, list(_inputs(sampler, 1))).eval()
    for rows, larger in _trials(sampler.game.input_multiple(sampler.direction)):
        inputs = _inputs(sampler, rows, larger)
        try:
            session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
            (made,) = session.run(None, {plain_name(name): tensor.numpy() for name, tensor in inputs.items()})
        except Exception as error:  # the runtime's own exceptions
            words = " ".join(str(error).split())[:200]
            raise RunError(f"format=onnx: ONNX Runtime cannot run the export ({words})") from None
        wanted = (
            ours(*inputs.values())
            if drops(sampler) or noisy(sampler)
            else sampler.generate_here(inputs)[sampler.column]
        ).numpy()
        worst = max(worst, float(np.abs(made - wanted).max())) if made.shape == wanted.shape else float("inf")
        if noisy(sampler) and CLOSE < worst < float("inf"):
            precise = copy.deepcopy(ours).double()(
                *(t.double() if t.is_floating_point() else t for t in inputs.values())
            )
            own = max(own, float(np.abs(precise.numpy() - wanted).max()))
    if not worst <= max(CLOSE, AMPLIFIED * own):
        said = f"ONNX Runtime's {sampler.field.words} differ by {worst:.2g} from PyTorch's"
        raise RunError(f"format=onnx: {said}; no file was kept")
    return worst
