"""The ids of runs."""

import threading
import time
from uuid import UUID

import pytest

from db.repositories.job_run import as_uuid7
from holdfast import ids
from holdfast.ids import MOST_AHEAD_MS, uuid7


@pytest.fixture(autouse=True)
def fresh_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clocks of these tests jump, and the process's own sequence never goes back."""
    monkeypatch.setattr(ids, "_sequence", ids._Sequence())


def test_the_layout_is_that_of_rfc_9562() -> None:
    before = time.time_ns() // 1_000_000
    one = uuid7()
    after = time.time_ns() // 1_000_000
    assert (one.version, one.variant) == (7, "specified in RFC 4122")
    assert before <= one.int >> 80 <= after


def test_the_known_example_of_the_rfc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Appendix A.6 of RFC 9562; its random bits are our counter and our noise."""
    monkeypatch.setattr(ids._sequence, "take", lambda count: (0x017F22E279B0, 0xCC3 << 30 | 0x18C4DC0C))
    monkeypatch.setattr("os.urandom", (0x0C07398F).to_bytes)
    assert str(uuid7()) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


def test_later_ids_sort_later(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for milliseconds in (0, 1, 1_767_225_600_000, 1_767_225_600_001, (1 << 48) - 1):
        monkeypatch.setattr("time.time_ns", lambda now=milliseconds: now * 1_000_000)
        made.append(uuid7())
    assert made == sorted(made)
    assert [str(one) for one in made] == sorted(str(one) for one in made)


def at(monkeypatch: pytest.MonkeyPatch, milliseconds: int) -> UUID:
    """An id that is made when the clock shows this."""
    monkeypatch.setattr("time.time_ns", lambda: milliseconds * 1_000_000)
    return uuid7()


def test_a_clock_that_goes_back_a_little_does_not_disturb_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_767_225_600_000
    made = [at(monkeypatch, now + offset) for offset in (0, -1, -MOST_AHEAD_MS, 0, 1, -5, 2)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert all(one.int >> 80 <= now + 2 for one in made)


def test_ids_do_not_stay_ahead_of_a_clock_that_jumped_forward_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_767_225_600_000
    assert at(monkeypatch, now).int >> 80 == now
    assert at(monkeypatch, now + 7_200_000).int >> 80 == now + 7_200_000
    after = [at(monkeypatch, now + offset) for offset in (1_000, 1_000, 1_001)]
    assert [one.int >> 80 for one in after] == [now + 1_000, now + 1_000, now + 1_001]
    assert after == sorted(after)
    assert at(monkeypatch, now - MOST_AHEAD_MS).int >> 80 == now - MOST_AHEAD_MS


def test_ids_made_at_once_differ() -> None:
    made: list[object] = []
    threads = [threading.Thread(target=lambda: made.extend(uuid7() for _ in range(2_000))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 8_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "00000000-0000-4000-8000-000000000000",
        "017F22E2-79B0-7CC3-98C4-DC0C0C07398F",
        "017f22e279b07cc398c4dc0c0c07398f",
        "{017f22e2-79b0-7cc3-98c4-dc0c0c07398f}",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398f ",
    ],
)
def test_only_the_usual_form_of_a_version_7_is_one(text: str) -> None:
    assert as_uuid7(text) is None


def test_our_own_ids_are_ones() -> None:
    one = uuid7()
    assert as_uuid7(str(one)) == one
