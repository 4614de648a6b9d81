"""Choice of device, precision and compiler; every fallback is reported."""

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
    """The `device` group: the kind of device, and the number of CPU threads (null: torch's default).

    timeout: seconds that a rank waits for the others.
    """

    kind: Kind = "auto"
    threads: int | None = None
    timeout: float = 600.0

    def __post_init__(self) -> None:
        if not 0 < self.timeout < float("inf"):
            raise ConfigError(f"device.timeout={self.timeout:g}: seconds above 0")


@dataclass(frozen=True, kw_only=True)
class PrecisionChoice:
    """The `precision` group: the precision of the networks' computations; weights are float32."""

    kind: Precision = "auto"


@dataclass(frozen=True)
class Compute:
    """A device, autocast's dtype (None: no autocast, float32), and notes on these choices for the log."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    autocast: torch.dtype | None = None
    notes: tuple[str, ...] = ()

    def reseed(self, seed: int) -> None:
        """Seed the default generators of the CPU and of this device, which layers without keyed randomness use.

        It seeds only these two generators: torch.manual_seed seeds every device's, at 200 times the cost.
        """
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index or 0].manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    def synchronize(self) -> None:
        """Wait until the device has finished all work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def place(self, net: nn.Module) -> nn.Module:
        """Move a network to the device, with the weights of 2D convolutions in channels-last format.

        These are the tensors with four dimensions; the others, such as those of 1D convolutions, keep their format.
        """
        net.to(self.device)
        for tensor in (*net.parameters(), *net.buffers()):
            if tensor.dim() == 4:
                tensor.data = tensor.data.to(memory_format=torch.channels_last)
        for module in net.modules():
            if (arrange := getattr(module, "arrange", None)) is not None:  # a layer with a memory format of its own
                arrange()
        return net


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for later tensors: returning it to the system costs a fifth of a step on a CPU.

    Does nothing with another C library, or if glibc refuses.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, number in ((-3, 32 << 20), (-1, 1 << 30)):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, in bytes
            mallopt(option, number)


def resolve(device: DeviceChoice, precision: PrecisionChoice) -> Compute:
    """Resolve the settings on this machine. Raises DeviceError if a requested device or dtype is not available."""
    where = chosen(device.kind)
    if device.threads is not None:
        if not 1 <= device.threads <= 1024:
            raise DeviceError(f"device.threads={device.threads}: must be 1 to 1024, or null for torch's default")
        torch.set_num_threads(device.threads)
    if where.type == "cpu":
        keep_freed_memory()
    if where.type == "cuda":
        torch.backends.cudnn.benchmark = True
        # TF32 rounds inputs to 10 bits: used unless precision=fp32 was requested.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision.kind != "fp32"
    autocast, note = _autocast(precision.kind, where)
    return Compute(where, autocast, (f"device {_describe(where)}", note))


@contextmanager
def settings_kept() -> Iterator[None]:
    """Restore process-wide settings on exit, so that the jobs of a sweep do not affect each other."""
    threads = torch.get_num_threads()
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before
        if "torch._dynamo" in sys.modules:  # it stops compiling code that was compiled too often
            torch.compiler.reset()


def chosen(kind: Kind) -> torch.device:
    """This rank's device of a kind. Raises DeviceError if there is none."""
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if kind == "cuda":
        if not torch.cuda.is_available():
            raise DeviceError("device=cuda: torch finds no CUDA device; use device=auto or device=cpu")
        local, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local and local >= there:
            raise DeviceError(
                f"local rank {local} has no CUDA device, since this machine has {there}: start with"
                f" --nproc-per-node={there}"
            )
        return torch.device("cuda", local)
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device=mps: torch finds no Apple GPU; use device=auto or device=cpu")
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
        return None, f"precision fp32 (auto: bf16 is used only on CUDA devices that support it, this is {device.type})"
    if kind == "fp16" and device.type != "cuda":
        raise DeviceError(
            f"precision=fp16 needs a CUDA device, but this is {device.type}: use precision=fp32 or precision=auto"
        )
    if kind == "bf16" and device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return (
            torch.bfloat16,
            "precision bf16, for which this CPU has no instructions: it is many times slower than fp32",
        )
    if kind == "bf16" and device.type == "cuda" and not _native_bf16():
        raise DeviceError("precision=bf16: this CUDA device has no bfloat16; use precision=fp16 or precision=auto")
    if kind == "bf16" and device.type == "mps" and not torch.backends.mps.is_macos_or_newer(14, 0):
        raise DeviceError("precision=bf16 on mps needs macOS 14: use precision=fp32 or precision=auto")
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[kind], f"precision {kind}"


def _native_bf16() -> bool:
    """Whether the CUDA device supports bfloat16 natively: by default torch counts slow emulation as support."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def compile_networks(nets: dict[str, nn.Module], *, eager: Mapping[str, str], device: torch.device) -> list[str]:
    """Compile networks in place, except the `eager` ones (name: reason), and return notes for the log.

    One reason is a gradient penalty, whose second derivative torch.compile's ahead-of-time backward does not support.
    Another is a growing network, which would be recompiled at each of its sizes.
    """
    lacking = _lacking(device)
    if lacking:
        return [f"compile: {lacking}; the networks run uncompiled"]
    notes = []
    for name, net in nets.items():
        if name in eager:
            notes.append(f"compile: {name} is not compiled: {eager[name]}")
            continue
        for layer in noise.layers({name: net}).values():
            layer.hide()
        try:
            net.compile()
        except RuntimeError as error:  # a Python version or a system that torch.compile does not support
            uncompile(nets.values())
            return [f"compile: {' '.join(str(error).split())[:120]}; the networks run uncompiled"]
        notes.append(f"compile: {name} is compiled; the first steps take longer")
    return notes


def _lacking(device: torch.device) -> str | None:
    """Why torch.compile cannot be used on this device; None if it can."""
    if device.type == "mps":
        return "torch.compile does not support mps"
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            return "Triton is not installed (pip install triton)"
        major, minor = torch.cuda.get_device_capability(device)
        return None if major >= 7 else f"Triton needs a GPU of compute capability 7.0, this one has {major}.{minor}"
    found = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    return None if found else "no C++ compiler found (install g++ or clang++)"


def uncompile(nets: Iterable[nn.Module]) -> bool:
    """Undo the compilation of networks; return whether any was compiled."""
    found = False
    for net in nets:
        found = found or net._compiled_call_impl is not None
        net._compiled_call_impl = None
    return found
