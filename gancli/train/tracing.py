"""Tracing of torch operations: bytes of live tensors, operation counts, and a time limit."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class OverTime(Exception):  # noqa: N818
    """The traced operations exceed their time limit."""


class LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A dispatch mode that tracks the bytes of live tensors created under it, and counts additions and multiplications.

    until: time (of time.monotonic) after which the next operation raises OverTime. Tensors on the meta device count
    with the bytes that they would have. traffic: approximate bytes that all other operations read and write, twice the
    bytes that they create or change.
    """

    def __init__(self, until: float | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        from torch.utils.flop_counter import flop_registry

        self.now, self.history, self.operations, self.traffic = 0, [0], 0, 0
        self._until, self._counts = until, flop_registry
        self._known: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        if self._until is not None and time.monotonic() > self._until:
            raise OverTime
        keys = kwargs or {}
        given = {id(storage) for storage in _storages((*args, *keys.values()))}
        answer = func(*args, **keys)
        count: Callable[..., int] | None = self._counts.get(func.overloadpacket)
        if count is not None:
            self.operations += count(*args, **keys, out_val=answer)
        made = 0
        for storage in _storages((answer,)):
            if id(storage) not in given and id(storage) not in self._known:
                self._follow(storage)
                made += storage.nbytes()
        if count is None:
            changed = args[0].nbytes if func._schema.is_mutable and args and isinstance(args[0], Tensor) else 0
            self.traffic += 2 * max(made, changed)
        self.history.append(self.now)
        return answer

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        self._known[key] = size
        self.now += size
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self._known.pop(key, 0)


def _storages(values: Iterable[object]) -> Iterator[torch.UntypedStorage]:
    """Yield the storages of all tensors in values and nested lists."""
    for value in values:  # torch's general tree traversal would take half of the time
        if isinstance(value, Tensor):
            try:
                yield value.untyped_storage()
            except (NotImplementedError, RuntimeError):  # a tensor without a storage
                continue
        elif isinstance(value, (list, tuple)):
            yield from _storages(value)
