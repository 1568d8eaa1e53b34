"""Ending a process that was told to stop and cannot: a job blocks its event loop, or does not let itself be cancelled.

The loop's own handlers hear a signal only when the loop turns again; Python's hears it between two lines of the job.
"""

import asyncio
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from worker.logs import get_logger

SIGNALS = (signal.SIGTERM, signal.SIGINT)
MARGIN_S = 2.0
"""Seconds after the time of grace, or after a second signal, in which the worker has to come to its end."""
LAST_WORDS_S = 0.5
TOLD, NOT_TOLD = b"1", b"0"


class StopWatch:
    """Watches from a thread of its own, until the process ends.

    Args:
        grace_s: seconds that running jobs have after the first signal.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._hears = self._tells = -1
        self._on_told: Callable[[], None] = lambda: None
        self._what_runs: Callable[[], str] = lambda: "nothing"
        self._before: dict[int, Any] = {}
        self._is_told = False

    def listen(self, on_told: Callable[[], None], what_runs: Callable[[], str]) -> None:
        """Begin, in the main thread and after the event loop's own handlers are there: they are called as before.

        Args:
            on_told: called in the thread at the first signal.
            what_runs: called in the thread; names what holds the process up.
        """
        self._on_told, self._what_runs = on_told, what_runs
        self._hears, self._tells = os.pipe()
        threading.Thread(target=self._watch, name="holdfast-stop-watch", daemon=True).start()
        for number in SIGNALS:
            self._before[number] = signal.getsignal(number)
            signal.signal(number, self._heard)
            signal.siginterrupt(number, False)  # as event loops want it; signal() takes that back

    def close(self) -> None:
        """Stop listening, when the worker has come to its end and its event loop still runs.

        If a signal came, the end of the process is watched still, and further ones are ignored: the process would die
        of one that comes in its last moments, and look as if it had not come to its end. Else signals are as before.
        """
        told = self._is_told
        for number, before in self._before.items():
            if told:
                asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN if told else before)
        if not told:
            os.write(self._tells, NOT_TOLD)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        # No lock may be taken here: the main thread may hold it.
        self._is_told = True
        os.write(self._tells, TOLD)
        if callable(before := self._before[number]):
            before(number, frame)

    def _watch(self) -> None:
        if os.read(self._hears, 1) == NOT_TOLD:
            os.close(self._hears)
            os.close(self._tells)
            return
        told_at = time.monotonic()
        end_at = told_at + self._grace_s + MARGIN_S
        self._on_told()
        while (rest_s := end_at - time.monotonic()) > 0:
            if select.select([self._hears], [], [], rest_s)[0] and os.read(self._hears, 1) == TOLD:
                end_at = min(end_at, time.monotonic() + MARGIN_S)
        # In a thread, because whoever blocks the process may block its log.
        last_words = threading.Thread(target=self._say, args=(time.monotonic() - told_at,), daemon=True)
        last_words.start()
        last_words.join(LAST_WORDS_S)
        os._exit(1)

    def _say(self, told_s: float) -> None:
        get_logger().error(
            "told to stop and not at an end: ended by force; other workers take its runs up when their leases are over",
            told_s=round(told_s, 1),
            still_there=self._what_runs(),
        )
