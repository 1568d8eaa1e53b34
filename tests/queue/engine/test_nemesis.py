"""All of it mixed, from a seed: every acknowledged id ends once between two flushes, as far as results go."""

import os
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from holdfast import wire
from tests.processes import WorkerProcess
from tests.queue.engine.room import Room

DURATION_S = float(os.environ.get("HOLDFAST_NEMESIS_S", "6"))
SEED = os.environ.get("HOLDFAST_NEMESIS_SEED")
WORKERS = 3
LEASE_S = 0.8


class ResultWatch:
    """Counts how often each result is written, by Redis's own notifications."""

    def __init__(self, room: Room) -> None:
        room.redis.config_set("notify-keyspace-events", "K$")
        self.written: Counter[str] = Counter()
        self._channel = f"__keyspace@0__:{wire.RESULT_KEY}"
        self._subscription = room.redis.pubsub(ignore_subscribe_messages=True)
        self._subscription.psubscribe(self._channel + "*")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._subscription.close()

    def _listen(self) -> None:
        while not self._stop.is_set():
            message = self._subscription.get_message(timeout=0.1)
            if message and message["data"] == b"set":
                self.written[message["channel"].decode().removeprefix(self._channel)] += 1


class Nemesis:
    """Does harm in an order that its seed decides, and remembers what was acknowledged."""

    def __init__(self, room: Room, seed: int) -> None:
        self._room = room
        self._random = random.Random(seed)  # noqa: S311 - it must repeat
        self._paused: dict[WorkerProcess, float] = {}
        self.living: list[WorkerProcess] = []
        self.acknowledged: dict[str, int] = {}
        """Job id -> how many flushes came before it."""
        self.flushes = 0

    def run(self, duration_s: float) -> None:
        """Does harm for so long (s); afterwards all workers run."""
        deeds: list[tuple[Callable[[], None], int]] = [
            (self._enqueue, 60),
            (self._kill, 6),
            (self._pause, 6),
            (self._cut, 4),
            (self._hold_up, 3),
            (self._flush, 2),
        ]
        ends_at = time.monotonic() + duration_s
        while time.monotonic() < ends_at:
            (deed,) = self._random.choices([deed for deed, _ in deeds], [weight for _, weight in deeds])
            deed()
            self._wake(time.monotonic())
            self._staff()
            time.sleep(self._random.uniform(0.0, 0.1))
        self._wake(float("inf"))

    def _staff(self) -> None:
        while len(self.living) < WORKERS:
            options = {"lease_s": LEASE_S, "max_jobs": self._random.choice([2, 10]), "longest_idle_s": 1.0}
            self.living.append(self._room.start(ready=False, call_deadline_s=1.0, **options))

    def _enqueue(self) -> None:
        function, *arguments = self._random.choice(
            [("quick",), ("retrying", 2), ("retrying", 1, "", 0.2), ("sleeping", 0.1), ("sleeping", 1.0)]
        )
        job_ids = [f"{self.flushes}-{len(self.acknowledged) + number}" for number in range(self._random.randint(1, 8))]
        defer_s = self._random.choice([0.0, 0.0, 0.0, 0.5])
        self._room.enqueue_all(str(function), job_ids, *arguments, defer_s=defer_s)
        self.acknowledged.update(dict.fromkeys(job_ids, self.flushes))

    def _victim(self) -> WorkerProcess | None:
        awake = [worker for worker in self.living if worker not in self._paused]
        return self._random.choice(awake) if awake else None

    def _kill(self) -> None:
        if victim := self._victim():
            victim.kill()
            self.living.remove(victim)

    def _pause(self) -> None:
        if (victim := self._victim()) and victim.alive:
            victim.pause()
            self._paused[victim] = time.monotonic() + self._random.uniform(0.1, 2.5 * LEASE_S)

    def _wake(self, now: float) -> None:
        for worker in [worker for worker, until in self._paused.items() if until <= now]:
            worker.resume()
            del self._paused[worker]

    def _cut(self) -> None:
        self._room.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def _hold_up(self) -> None:
        self._room.redis.execute_command("CLIENT", "PAUSE", self._random.randint(50, 1500), "WRITE")

    def _flush(self) -> None:
        self._room.redis.flushall()
        self.flushes += 1


def test_every_acknowledged_job_ends_once(own_room: Room) -> None:
    room, seed = own_room, int(SEED) if SEED else secrets.randbelow(2**32)
    print(f"HOLDFAST_NEMESIS_SEED={seed} HOLDFAST_NEMESIS_S={DURATION_S}")  # pytest shows it when the test fails
    nemesis = Nemesis(room, seed)
    with ResultWatch(room) as watch:
        nemesis.run(DURATION_S)
        safe = [job_id for job_id, flushes in nemesis.acknowledged.items() if flushes == nemesis.flushes]
        room.wait(lambda: all(watch.written[job_id] for job_id in safe), f"the results of {len(safe)} jobs", 60)
        room.wait(lambda: room.left_behind() == [], "an empty queue", 60)

    print(f"{len(nemesis.acknowledged)} jobs, {nemesis.flushes} flushes, {len(room.workers)} workers")
    assert {job_id: watch.written[job_id] for job_id in safe} == dict.fromkeys(safe, 1)
    more_than_one_epoch = {
        job_id: written
        for job_id, written in watch.written.items()
        if written > 1 + nemesis.flushes - nemesis.acknowledged[job_id]
    }
    assert more_than_one_epoch == {}
    assert all(worker.alive for worker in nemesis.living)
    assert _ends(room, safe) == {}, "jobs that ended as failures"


def _ends(room: Room, job_ids: list[str]) -> dict[str, Any]:
    return {job_id: result for job_id in job_ids if (result := room.result(job_id)) and not result["s"]}
