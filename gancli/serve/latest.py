"""Work that is asked for more often than it can be done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable


class Latest:
    """Does a piece of work once at a time; asked while at it, it does it once more, however often it was asked.

    So a slider that moves on while a picture is drawn waits for one picture more, and not for all it passed.
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
