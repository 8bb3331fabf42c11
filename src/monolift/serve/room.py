"""Room for bytes and pixels: what is in memory at one moment has a bound."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque


class Room:
    """A number that is taken from and given back, by the coroutines of one event loop.

    A request for more than the whole room counts as the whole room, so it passes when everything else has left.
    """

    def __init__(self, size: int) -> None:
        self.size = self.left = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def take(self, amount: int) -> bool:
        """Whether ``amount`` was free, and is taken now."""
        if self._waiting or amount > self.left:
            return False
        self.left -= amount
        return True

    async def wait(self, amount: int) -> None:
        """Takes ``amount`` when its turn comes, first come, first served. Cancelling it takes nothing."""
        amount = min(amount, self.size)
        if self.take(amount):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # its turn came in the same moment
                self.free(amount)
            else:
                with contextlib.suppress(ValueError):
                    self._waiting.remove((amount, turn))
                self._admit()
            raise

    def free(self, amount: int) -> None:
        """Gives back what was taken."""
        self.left += min(amount, self.size)
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._waiting[0][0] <= self.left:
            amount, turn = self._waiting.popleft()
            if not turn.done():
                self.left -= amount
                turn.set_result(None)
