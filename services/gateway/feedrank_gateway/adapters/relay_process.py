"""Slates to the bus through a child process, `slate_relay.py`, which is started anew if it ends."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import suppress

from feedrank_core.runtime.bus import BusUnavailableError

from feedrank_gateway.ports import SlatesRefusedError
from feedrank_gateway.slate_relay import LENGTH_BYTES, Outcome, framed, length_of, outcome_of

ANSWER_S = 30.0
"""Longer than any bus takes to answer or give up; a relay that is silent so long hangs."""
END_S = 2.0


class RelayProcess:
    """A SlatePublisher. One call at a time; nothing starts before the first."""

    def __init__(self, bus_url: str, *, answer_s: float = ANSWER_S) -> None:
        self._environment = {"FEEDRANK_BUS_URL": bus_url}
        self._answer_s = answer_s
        self._process: Process | None = None

    @property
    def pid(self) -> int | None:
        """The child's, where there is one."""
        return self._process.pid if self._process is not None else None

    async def publish(self, slates: Sequence[tuple[str, bytes]]) -> None:
        """As the port says. Raises: BusUnavailableError, SlatesRefusedError."""
        try:
            async with asyncio.timeout(self._answer_s):
                outcome = await self._ask(slates)
        except (OSError, EOFError, TimeoutError) as error:
            await self._end(grace_s=0.0)
            raise BusUnavailableError("the slate relay ended or hangs; it starts anew") from error
        if outcome.may_retry:
            raise BusUnavailableError(outcome.reason)
        if outcome.reason is not None:
            raise SlatesRefusedError(outcome.reason)

    async def close(self) -> None:
        """End the child, which holds nothing."""
        await self._end(grace_s=END_S)

    async def _ask(self, slates: Sequence[tuple[str, bytes]]) -> Outcome:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "feedrank_gateway.slate_relay"),
                stdin=PIPE,
                stdout=PIPE,
                env=os.environ | self._environment,
            )
        sink, source = self._process.stdin, self._process.stdout
        assert sink is not None and source is not None
        sink.write(framed(slates))
        await sink.drain()
        return outcome_of(
            await source.readexactly(length_of(await source.readexactly(LENGTH_BYTES)))
        )

    async def _end(self, *, grace_s: float) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), grace_s)
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
