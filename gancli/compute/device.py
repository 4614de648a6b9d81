"""Where and how to compute: device, precision and compiler, with honest fallbacks."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from gancli.errors import ConfigError, DeviceError
from gancli.nets.layers import noise

Kind = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class DeviceChoice:
    """The `device` group: which kind, and how many threads the CPU may use (null: torch's own choice).

    timeout: seconds that one of several ranks waits for the others.
    """

    kind: Kind = "auto"
    threads: int | None = None
    timeout: float = 600.0

    def __post_init__(self) -> None:
        if not 0 < self.timeout < float("inf"):
            raise ConfigError(f"device.timeout={self.timeout:g}: seconds above 0")


@dataclass(frozen=True, kw_only=True)
class PrecisionChoice:
    """The `precision` group: what the networks compute in; weights stay in float32."""

    kind: Precision = "auto"


@dataclass(frozen=True)
class Compute:
    """A device, what autocast computes in (None: float32 throughout), and what was decided, in words."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    autocast: torch.dtype | None = None
    notes: tuple[str, ...] = ()

    def reseed(self, seed: int) -> None:
        """Seed the default generators of this device, from which layers that are not keyed draw.

        Two calls to `manual_seed` of single generators: torch.manual_seed visits every device and costs 200 times more.
        """
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index or 0].manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    def synchronize(self) -> None:
        """Wait until the device has done all it was asked."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def place(self, net: nn.Module) -> nn.Module:
        """Move a network here, with image weights in the memory order that convolutions are fastest in.

        Those are the weights of four dimensions; the others, as of convolutions over time or over lines, keep theirs.
        """
        net.to(self.device)
        for tensor in (*net.parameters(), *net.buffers()):
            if tensor.dim() == 4:
                tensor.data = tensor.data.to(memory_format=torch.channels_last)
        for module in net.modules():
            if (arrange := getattr(module, "arrange", None)) is not None:  # a layer that wants another order
                arrange()
        return net


def keep_freed_memory() -> None:
    """Let glibc keep what is freed on a CPU for the next tensor: pages that go back and forth cost a fifth of a step.

    Elsewhere, and where it refuses, nothing is changed.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, number in ((-3, 32 << 20), (-1, 1 << 30)):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, in bytes
            mallopt(option, number)


def resolve(device: DeviceChoice, precision: PrecisionChoice) -> Compute:
    """Turn wishes into what this machine has. Raises DeviceError when something asked for by name is missing."""
    where = chosen(device.kind)
    if device.threads is not None:
        if not 1 <= device.threads <= 1024:
            raise DeviceError(f"device.threads={device.threads}: at least 1, at most 1024, or null for torch's choice")
        torch.set_num_threads(device.threads)
    if where.type == "cpu":
        keep_freed_memory()
    if where.type == "cuda":
        torch.backends.cudnn.benchmark = True
        # TF32 rounds inputs to 10 bits: welcome beside half precision, not where float32 was asked for by name.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision.kind != "fp32"
    autocast, note = _autocast(precision.kind, where)
    return Compute(where, autocast, (f"device {_describe(where)}", note))


@contextmanager
def settings_kept() -> Iterator[None]:
    """What a job sets for the whole process is undone after it, so that a sweep's jobs do not see each other."""
    threads = torch.get_num_threads()
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before
        if "torch._dynamo" in sys.modules:  # it gives up on code that many jobs have compiled
            torch.compiler.reset()


def chosen(kind: Kind) -> torch.device:
    """This rank's device of a kind. Raises DeviceError where there is none."""
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if kind == "cuda":
        if not torch.cuda.is_available():
            raise DeviceError("device=cuda: torch sees no CUDA device here; use device=auto or device=cpu")
        local, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local and local >= there:
            raise DeviceError(
                f"rank {local} of this machine finds {there} CUDA devices: start with --nproc-per-node={there}"
            )
        return torch.device("cuda", local)
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device=mps: torch sees no Apple GPU here; use device=auto or device=cpu")
    return torch.device(kind)


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)" if device.type == "cpu" else device.type


def _autocast(kind: Precision, device: torch.device) -> tuple[torch.dtype | None, str]:
    if kind == "auto":
        if device.type == "cuda" and _native_bf16():
            return torch.bfloat16, "precision bf16 (auto)"
        if device.type == "cuda":
            return None, "precision fp32 (auto: this CUDA device has no bf16; precision=fp16 may be faster)"
        return None, f"precision fp32 (auto: bf16 pays off on CUDA devices that have it, this is {device.type})"
    if kind == "fp16" and device.type != "cuda":
        raise DeviceError(
            f"precision=fp16 needs a CUDA device and this is {device.type}: use precision=fp32 or precision=auto"
        )
    if kind == "bf16" and device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return (
            torch.bfloat16,
            "precision bf16, which this CPU has no instructions for: expect it to be many times slower than fp32",
        )
    if kind == "bf16" and device.type == "cuda" and not _native_bf16():
        raise DeviceError("precision=bf16: this CUDA device has no bfloat16; use precision=fp16 or precision=auto")
    if kind == "bf16" and device.type == "mps" and not torch.backends.mps.is_macos_or_newer(14, 0):
        raise DeviceError("precision=bf16 on mps needs macOS 14: use precision=fp32 or precision=auto")
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[kind], f"precision {kind}"


def _native_bf16() -> bool:
    """Whether the CUDA device computes in bfloat16 itself: torch also counts those that only emulate it, slowly."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def compile_networks(nets: dict[str, nn.Module], *, eager: Mapping[str, str], device: torch.device) -> list[str]:
    """Compile networks in place, but for the `eager` ones, each with its reason, and say what was done.

    Such a reason is the second derivative that a gradient penalty needs: the ahead-of-time backward of torch.compile
    rejects it. Another is a network that grows, and would be compiled anew at each of its sizes.
    """
    lacking = _lacking(device)
    if lacking:
        return [f"compile: {lacking}; going on uncompiled"]
    notes = []
    for name, net in nets.items():
        if name in eager:
            notes.append(f"compile: {name} stays uncompiled, {eager[name]}")
            continue
        for layer in noise.layers({name: net}).values():
            layer.hide()
        try:
            net.compile()
        except RuntimeError as error:  # a Python or a system that torch.compile does not support
            uncompile(nets.values())
            return [f"compile: {' '.join(str(error).split())[:120]}; going on uncompiled"]
        notes.append(f"compile: {name} compiled, the first steps take longer")
    return notes


def _lacking(device: torch.device) -> str | None:
    """What torch.compile needs on this device and does not find."""
    if device.type == "mps":
        return "torch.compile does not support mps"
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            return "Triton is not installed (pip install triton)"
        major, minor = torch.cuda.get_device_capability(device)
        return None if major >= 7 else f"Triton needs a GPU of compute capability 7.0 and this one has {major}.{minor}"
    found = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    return None if found else "no C++ compiler found (install g++ or clang++)"


def uncompile(nets: Iterable[nn.Module]) -> bool:
    """Let networks run as they are written again; whether any of them was compiled."""
    found = False
    for net in nets:
        found = found or net._compiled_call_impl is not None
        net._compiled_call_impl = None
    return found
