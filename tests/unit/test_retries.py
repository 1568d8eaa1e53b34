"""Whether and when a failed attempt is tried again."""

import asyncio
import re
from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from db.errors import DatabaseUnavailable
from holdfast import RestoreReport
from jobs.outcomes import FenceLost, JobCancelled, JobFailed, JobSnoozed, RunInterrupted
from jobs.retry_policy import RetryPolicy
from tests.odd_errors import UnspeakableError
from worker.retries import LONGEST_S, Outcome, backoff_s, classify, is_expected

TRANSIENT = [
    DatabaseUnavailable("no connection"),
    PoolTimeoutError("QueuePool limit"),
    ConnectionResetError(104, "reset by peer"),
    OperationalError("UPDATE x", {}, Exception("database is locked")),
    TimeoutError(),
]
FINAL = [ValueError("line one\nline two"), KeyError("x"), JobFailed("missing_column", "no column 'key'")]


@given(st.integers(min_value=1, max_value=10**6))
def test_the_pause_lies_below_its_bound(attempt: int) -> None:
    assert 0.0 <= backoff_s(attempt, RetryPolicy()) <= min(RetryPolicy().slowest_s, 2.0 ** min(attempt, 30))


def test_the_pause_is_drawn_from_the_whole_range(monkeypatch: pytest.MonkeyPatch) -> None:
    for end, expected in ((max, [2.0, 4.0, 8.0, 256.0, 300.0, 300.0]), (min, [0.0] * 6)):
        monkeypatch.setattr("random.uniform", end)
        assert [backoff_s(attempt, RetryPolicy()) for attempt in (1, 2, 3, 8, 9, 100)] == expected


@pytest.mark.parametrize("error", TRANSIENT, ids=lambda error: type(error).__name__)
def test_what_may_pass_is_tried_again_until_the_attempts_are_used_up(error: Exception) -> None:
    for attempt in (1, 2):
        outcome = classify(error, attempt=attempt, policy=RetryPolicy(max_attempts=3))
        assert outcome.name == "retry"
        assert 0.0 <= outcome.delay_s <= 2.0**attempt
        assert outcome.error is not None
        assert outcome.error["type"] == type(error).__name__
    last = classify(error, attempt=3, policy=RetryPolicy(max_attempts=3))
    assert last.name == "failed"
    assert last.error is not None
    assert last.error["message"].endswith("; given up after 3 attempts")
    assert last.error["type"] == type(error).__name__


@pytest.mark.parametrize("error", FINAL, ids=lambda error: type(error).__name__)
def test_what_will_not_pass_fails_at_once(error: Exception) -> None:
    outcome = classify(error, attempt=1, policy=RetryPolicy(max_attempts=5))
    assert outcome.name == "failed"
    assert outcome.error is not None
    assert "\n" not in outcome.error["message"]


def test_a_report_that_does_not_fit_is_told_by_its_field() -> None:
    with pytest.raises(ValidationError) as caught:
        RestoreReport.model_validate({"restored": float("nan")})
    outcome = classify(caught.value, attempt=1, policy=RetryPolicy(max_attempts=5))
    assert outcome.error is not None
    assert outcome.error["type"] == "ValidationError"
    assert re.fullmatch(r"RestoreReport: \w+: .*", outcome.error["message"])


@pytest.mark.parametrize(
    "outcome", [FenceLost("x"), JobCancelled("x"), JobFailed("x", "y"), JobSnoozed(1.0), RunInterrupted()]
)
def test_an_outcome_with_a_name_is_no_surprise(outcome: Exception) -> None:
    assert is_expected(outcome)
    assert not is_expected(ZeroDivisionError())


def test_the_jobs_own_word_is_kept() -> None:
    outcome = classify(JobFailed("missing_column", "no column 'key'"), attempt=1, policy=RetryPolicy(max_attempts=5))
    assert outcome == Outcome("failed", error={"type": "missing_column", "message": "no column 'key'"})


class Code(Enum):
    MISSING = "missing_column"


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (UnspeakableError(), "UnspeakableError", "UnspeakableError (its text fails: RuntimeError)"),
        (JobFailed("x", "a\0b"), "x", "a\\x00b"),
        (JobFailed("x", "name \udcff"), "x", "name \\udcff"),
        (JobFailed("a\0b", "text"), "a\\x00b", "text"),
        (JobFailed(Code.MISSING, "text"), "missing_column", "text"),  # type: ignore[arg-type]
        (JobFailed(UnspeakableError(), "text"), "UnspeakableError (its text fails: RuntimeError)", "text"),  # type: ignore[arg-type]
        (JobFailed("x" * 1000, "y" * 10**6), "x" * 97 + "...", "y" * 1997 + "..."),
    ],
)
def test_whatever_an_error_says_can_be_stored(error: Exception, kind: str, message: str) -> None:
    outcome = classify(error, attempt=1, policy=RetryPolicy())
    assert outcome == Outcome("failed", error={"type": kind, "message": message})


def test_a_long_text_leaves_room_for_the_number_of_attempts() -> None:
    outcome = classify(ConnectionError("y" * 10**6), attempt=5, policy=RetryPolicy())
    assert outcome.error is not None
    assert outcome.error["message"].endswith("y...; given up after 5 attempts")


@pytest.mark.parametrize(
    ("asked_s", "waits_s"), [(1e18, LONGEST_S), (float("inf"), LONGEST_S), (float("nan"), 0.0), (-5.0, 0.0)]
)
def test_a_pause_ends_before_time_does(asked_s: float, waits_s: float) -> None:
    assert classify(JobSnoozed(asked_s), attempt=1, policy=RetryPolicy()) == Outcome("snoozed", delay_s=waits_s)
    policy = RetryPolicy(first_s=asked_s, slowest_s=asked_s)
    assert 0.0 <= classify(TimeoutError(), attempt=1, policy=policy).delay_s <= LONGEST_S


def test_an_interruption_is_no_error() -> None:
    assert classify(RunInterrupted(), attempt=1, policy=RetryPolicy(max_attempts=1)) == Outcome("interrupted")


def test_a_lost_fence_is_lost() -> None:
    assert classify(FenceLost("taken over"), attempt=1, policy=RetryPolicy(max_attempts=5)).name == "lost"


def test_a_job_may_snooze_or_cancel_itself() -> None:
    assert classify(JobSnoozed(30.0), attempt=1, policy=RetryPolicy()) == Outcome("snoozed", delay_s=30.0)
    assert classify(JobCancelled("not wanted"), attempt=1, policy=RetryPolicy()).name == "cancelled"


def group(*errors: BaseException) -> BaseExceptionGroup:
    """As a task group raises it that was in another one."""
    return BaseExceptionGroup("outer", [asyncio.CancelledError(), BaseExceptionGroup("inner", errors)])


@pytest.mark.parametrize(
    ("error", "name", "kind"),
    [
        (group(ValueError("x"), FenceLost("x"), JobCancelled("x")), "lost", "FenceLost"),
        (group(ValueError("x"), JobFailed("code", "x"), JobCancelled("x")), "cancelled", "cancelled"),
        (group(RunInterrupted(), RunInterrupted()), "interrupted", None),
        (group(ValueError("x"), JobSnoozed(1.0), JobFailed("code", "x")), "failed", "code"),
        (group(ConnectionError("x"), JobSnoozed(1.0), RunInterrupted()), "retry", "ConnectionError"),
        (group(ValueError("x"), JobSnoozed(1.0)), "failed", "ValueError"),
        (group(RunInterrupted(), JobSnoozed(1.0)), "snoozed", None),
        (group(RunInterrupted(), ConnectionError("x"), TimeoutError("x")), "retry", "ConnectionError"),
        (group(ConnectionError("x"), ValueError("x"), KeyError("x")), "failed", "ValueError"),
        (group(RunInterrupted(), ValueError("x")), "failed", "ValueError"),
    ],
)
def test_a_group_means_what_its_errors_mean(error: BaseException, name: str, kind: str | None) -> None:
    outcome = classify(error, attempt=1, policy=RetryPolicy())
    assert (outcome.name, outcome.error and outcome.error["type"]) == (name, kind)


def test_a_group_is_no_surprise_if_none_of_its_errors_is() -> None:
    assert is_expected(group(RunInterrupted(), JobFailed("x", "y"), ConnectionError()))
    assert not is_expected(group(RunInterrupted(), ZeroDivisionError()))


def test_of_a_group_the_strictest_policy_counts() -> None:
    policy = RetryPolicy(by_error={KeyError: RetryPolicy(max_attempts=2), ConnectionResetError: None})
    both = group(ConnectionError("x"), KeyError("x"))
    assert [classify(both, attempt=attempt, policy=policy).name for attempt in (1, 2)] == ["retry", "failed"]
    assert classify(group(KeyError("x"), ConnectionResetError()), attempt=1, policy=policy).name == "failed"
    of_groups = RetryPolicy(by_error={BaseExceptionGroup: RetryPolicy(max_attempts=2)})
    assert classify(group(ValueError("x")), attempt=1, policy=of_groups).name == "retry"


def test_a_kind_may_say_otherwise_for_an_exception_and_its_subclasses() -> None:
    policy = RetryPolicy(by_error={LookupError: RetryPolicy(max_attempts=2, first_s=0.0), ConnectionError: None})
    assert classify(KeyError("x"), attempt=1, policy=policy).name == "retry"
    assert classify(KeyError("x"), attempt=2, policy=policy).name == "failed"
    assert classify(ConnectionResetError(), attempt=1, policy=policy).name == "failed"
