"""Prefetching: a thread reads what will probably be requested next while the device computes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Request(NamedTuple):
    """Rows start:stop of a batch of `total` rows at `position`; spatial columns at 1 / 2^level of their sides."""

    position: int
    total: int
    start: int
    stop: int
    level: int = 0


class Prefetch(Generic[T]):
    """Answers requests by `read`, and meanwhile prefetches the `depth` most likely next ones.

    It learns from the requests which one follows which, so that micro-batches, processes and moves of several sizes
    need no configuration. A wrong guess only costs time: an answer depends on its request alone.
    """

    def __init__(self, read: Callable[[Request], T], depth: int = 3):
        self._read, self._depth = read, depth
        self._pool = ThreadPoolExecutor(1, "ahead")
        self._next: dict[tuple[int, ...], Request] = {}  # the request that follows each one, position relative
        self._last: Request | None = None
        self._waiting: dict[Request, Future[T]] = {}

    def take(self, request: Request) -> T:
        """Return the answer, prefetched or read now."""
        if self._last is not None:
            further = request._replace(position=request.position - self._last.position)
            self._next[self._last[1:]] = further
        self._last = request
        found = self._waiting.pop(request, None)
        guesses, guess = [], request
        for _ in range(self._depth):
            step = self._next.get(guess[1:], guess._replace(position=guess.total))
            guess = step._replace(position=guess.position + step.position)
            guesses.append(guess)
        if found is None:
            answer = self._read(request)  # before the guesses, which would occupy the decoders
            self._fetch(guesses)
            return answer
        self._fetch(guesses)
        return found.result()

    def _fetch(self, guesses: list[Request]) -> None:
        for stale in [old for old in self._waiting if old not in guesses]:
            self._waiting.pop(stale).cancel()
        for guess in guesses:
            if guess not in self._waiting and guess.position >= 0:
                self._waiting[guess] = self._pool.submit(self._read, guess)
