"""Coalescing of repeated requests for the same work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable


class Latest:
    """Runs a function one call at a time; any number of calls while it runs cause a single further run.

    So a slider that moves while a picture is drawn causes one more picture, not one for each position.
    """

    def __init__(self, work: Callable[[], Awaitable[None]]):
        self._work, self._busy, self._again = work, False, False

    async def __call__(self) -> None:
        self._again = True
        if self._busy:
            return
        self._busy = True
        try:
            while self._again:
                self._again = False
                await self._work()
        finally:
            self._busy = False
