"""What must hold at every moment, and at the end: I1 to I3, no effect twice, nothing lost."""

from collections.abc import Collection, Iterator

from holdfast.states import RunState
from tests.model.world import Ended, Picture, Seen


class Judge:
    """Compares each moment with the rules and with the moment before."""

    def __init__(self) -> None:
        self._before = Picture({}, (), {}, ())
        self._wanted: dict[int, set[RunState]] = {}

    def ask(self, run: int) -> None:
        """Notes that a producer has asked for a run."""
        self._wanted[run] = {RunState.SUCCEEDED}

    def cancel(self, run: int) -> None:
        """Notes that somebody does not want it any more."""
        self._wanted[run].add(RunState.CANCELLED)

    def look(self, picture: Picture, *, heard: Collection[int], sure: Collection[int]) -> str | None:
        """Returns the first thing that is wrong.

        Args:
            picture: what is there now.
            heard: workers of which the ledger has heard lately: they are not dead.
            sure: workers that never stood still, while no clock was set and Redis forgot nothing: their claims hold.
        """
        found = next(self._problems(picture, heard, sure), None)
        self._before = picture
        return found

    def unended(self) -> list[int]:
        """Returns the runs that were not over at the last look."""
        return [run for run, seen in self._before.runs.items() if not seen.state.is_over]

    def conclude(self, promised: Collection[int]) -> str | None:
        """Returns the first thing that is wrong when all should be over.

        Args:
            promised: the runs that must not be lost.
        """
        return next(self._loose_ends(promised), None)

    def _problems(self, picture: Picture, heard: Collection[int], sure: Collection[int]) -> Iterator[str]:
        yield from picture.wrong
        for run, seen in picture.runs.items():
            yield from (f"run {run}: {problem}" for problem in _alone(seen))
            if (before := self._before.runs.get(run)) is not None:
                yield from (f"run {run}: {problem}" for problem in _after(before, seen))
        yield from (f"run {run} has left the ledger" for run in self._before.runs.keys() - picture.runs.keys())
        yield from _told(picture)
        keys = [seen.key for seen in picture.runs.values() if seen.key is not None and seen.state is RunState.RUNNING]
        yield from (f"two runs with the key {key!r} are running" for key in keys if keys.count(key) > 1)
        for ended in set(picture.attempts) - set(self._before.attempts):
            if ended.outcome == "crashed" and ended.worker in heard:
                yield f"run {ended.run}: worker {ended.worker} counts as dead and was just heard of"
            if ended.outcome == "interrupted" and ended.worker in sure:
                yield f"run {ended.run}: it was taken from worker {ended.worker}, whose claim holds"

    def _loose_ends(self, promised: Collection[int]) -> Iterator[str]:
        picture = self._before
        yield from (f"run {run} is lost" for run in sorted(promised - picture.runs.keys()))
        for run, seen in picture.runs.items():
            if not seen.state.is_over:
                yield f"run {run} did not end: it is {seen.state}"
            elif seen.state is RunState.QUARANTINED:
                yield from _to_blame(run, picture.attempts)
            elif seen.state not in self._wanted[run] and seen.key is None:
                yield f"run {run} ended as {seen.state}, and nobody wanted that"
        for ended in picture.attempts:
            if ended.outcome in {"failed", "retry"}:
                yield f"run {ended.run}: an attempt was charged ({ended.outcome}), and it did nothing wrong"
        yield from (f"Redis keeps {key}" for key in picture.left)


def _alone(seen: Seen) -> Iterator[str]:
    """What is wrong with a run, whatever was before."""
    if len(set(seen.effects)) < len(seen.effects):
        yield f"it took effect twice: {seen.effects}"
    if seen.effects != tuple(range(1, len(seen.effects) + 1)):
        yield f"it left out a step: {seen.effects}"
    if seen.state is RunState.SUCCEEDED and len(seen.effects) != seen.steps:
        yield f"it succeeded with {len(seen.effects)} effects of {seen.steps}"


def _after(before: Seen, now: Seen) -> Iterator[str]:
    """What is wrong with a run that was something else before."""
    if before.state.is_over and (now.state, now.fence, now.effects) != (before.state, before.fence, before.effects):
        yield f"it was over as {before.state} and is {now.state}, fence {before.fence} to {now.fence} (I3)"
    if now.fence < before.fence:
        yield f"its fence went from {before.fence} back to {now.fence}"
    if len(now.effects) > len(before.effects) and now.fence == before.fence and before.state is not RunState.RUNNING:
        yield f"it took effect while it was {before.state} (I1)"


def _told(picture: Picture) -> Iterator[str]:
    for run, is_success in picture.told.items():
        state = picture.runs[run].state if run in picture.runs else None
        if state is None or not state.is_over or (state is RunState.SUCCEEDED) is not is_success:
            yield f"run {run}: Redis was told of its {'success' if is_success else 'end'}, the ledger says {state} (I2)"


def _to_blame(run: int, attempts: Collection[Ended]) -> Iterator[str]:
    if sum(ended.outcome == "crashed" for ended in attempts if ended.run == run) < 3:
        yield f"run {run} is quarantined, and did not take three workers with it"
