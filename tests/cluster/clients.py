"""Run clients that send without pause, retry as documented, and record what they see."""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count, cycle, pairwise
from urllib.parse import urlsplit

import requests
import sqlalchemy as sa

from tests.cluster.bed import FRONT_ENDS, KEY, Bed
from tests.service.pool.pools import picture
from upscaled.config import load_settings
from upscaled.state import open_state
from upscaled.state.schema import CREDIT_ENTRIES, OPEN_HOLDS

CLIENTS = 8
PICTURES = tuple((side_px, scale) for side_px in (64, 96) for scale in (2, 4))
_LONGEST_WAIT_S = 5.0
_TIMEOUT_S = 120.0
_AGAIN_AFTER_S = 0.5


@dataclass(frozen=True)
class Answer:
    """One answer. status: 0 where the connection broke. picture: what was sent, of `PICTURES`."""

    at_s: float
    took_s: float
    front_end: str
    status: int
    picture: tuple[int, int]
    accept: str
    digest: str = ""
    error_code: str = ""
    is_delivered: bool = False


@dataclass
class Record:
    """What clients saw.

    began_at_s: by the monotonic clock, as the times of answers. back_at_s: when that which was away
    came back; gaps are counted from then on. front_ends: those that the clients send to from now
    on, as a balancer has them do; a test may change the list. given_up: requests that were answered
    500 again and again.
    """

    answers: list[Answer] = field(default_factory=list)
    began_at_s: float = field(default_factory=time.monotonic)
    back_at_s: float = 0.0
    front_ends: list[str] = field(default_factory=lambda: list(FRONT_ENDS))
    captured: int = 0
    given_up: int = 0
    is_over: threading.Event = field(default_factory=threading.Event)

    def delivered(self) -> list[Answer]:
        return [each for each in list(self.answers) if each.is_delivered]

    def lost(self) -> list[Answer]:
        """Return the answers that are neither a result nor 429 or 503, which ask for a retry."""
        return [
            each
            for each in list(self.answers)
            if not each.is_delivered and each.status not in (429, 503)
        ]

    def note_return(self) -> None:
        """Note that what was away answers again."""
        self.back_at_s = time.monotonic()

    def longest_gap_s(self) -> float:
        """Return the longest time in which no client had a result, since what was away is back."""
        times = sorted(each.at_s for each in self.delivered() if each.at_s > self.back_at_s)
        times = [self.back_at_s, *times] if self.back_at_s else times
        return max((later - earlier for earlier, later in pairwise(times)), default=0)

    def wait_for(self, more: int, timeout_s: float = 300) -> None:
        """Wait until so many more results are delivered."""
        wanted, give_up_at = len(self.delivered()) + more, time.monotonic() + timeout_s
        while len(self.delivered()) < wanted:
            assert time.monotonic() < give_up_at, f"no {more} results within {timeout_s:g} s"
            time.sleep(0.05)

    def describe(self, what: str) -> str:
        statuses = Counter(each.status for each in self.answers)
        slowest_s = max((each.took_s for each in self.delivered()), default=0)
        return (
            f"{what}: {len(self.delivered())} delivered, {self.captured} charged, "
            f"statuses {dict(statuses)}, slowest {slowest_s:.1f} s, "
            f"gap {self.longest_gap_s():.1f} s"
        )


def send(bed: Bed, front_end: str, wanted: tuple[int, int], accept: str) -> Answer:
    """Send one picture, and fetch its result where the answer is a URL."""
    side_px, scale = wanted
    began_at_s = time.monotonic()
    status, digest, error_code, is_delivered = 0, "", "", False
    try:
        answer = requests.post(
            f"{bed.url(front_end)}/v1/upscale",
            headers={"X-API-KEY": KEY, "Accept": accept},
            files={"image": picture(side_px)},
            data={"scale": str(scale)},
            timeout=_TIMEOUT_S,
        )
        status = answer.status_code
        if status != 200:
            error_code = answer.json()["error_code"]
            if status in (429, 503):
                time.sleep(min(float(answer.headers["Retry-After"]), _LONGEST_WAIT_S))
        else:
            content = answer.content
            if accept == "application/json":
                content = _fetch(answer.json()["result_url"], bed)
            digest, is_delivered = hashlib.sha256(content).hexdigest(), True
    except requests.RequestException as error:
        error_code = f"{type(error).__name__}: {error}"[:200]
    now_s = time.monotonic()
    took_s = now_s - began_at_s
    return Answer(
        now_s, took_s, front_end, status, wanted, accept, digest, error_code, is_delivered
    )


def _fetch(result_url: str, bed: Bed) -> bytes:
    """Fetch a result from any front end, again and again while the store is away."""
    give_up_at = time.monotonic() + _TIMEOUT_S
    for front_end in cycle(FRONT_ENDS):
        status = 0
        with suppress(requests.ConnectionError):
            url = bed.url(front_end) + urlsplit(result_url).path
            answer = requests.get(url, timeout=_TIMEOUT_S)
            status = answer.status_code
            if status == 200:
                return answer.content
        if time.monotonic() > give_up_at or status not in (0, 429, 500, 503):
            break
        time.sleep(0.5)
    raise requests.RequestException(f"the result: {status}")


@contextmanager
def clients_sending(bed: Bed) -> Iterator[Record]:
    """Let clients send one picture after another to all front ends until the block ends.

    Half of them ask for the picture, half for its URL. One whose connection breaks goes to the
    other front end, as a balancer would send it; one that is answered 500 sends again, as the page
    on errors says, until it has its result.
    """
    record = Record()
    before = count_captures(bed)

    def loop(number: int) -> None:
        accept = ("image/*", "application/json")[number // 2 % 2]
        at = number
        for sent in count(number):
            if record.is_over.is_set():
                return
            wanted = PICTURES[sent % len(PICTURES)]
            give_up_at = time.monotonic() + _TIMEOUT_S
            while True:
                chosen = list(record.front_ends)
                answer = send(bed, chosen[at % len(chosen)], wanted, accept)
                record.answers.append(answer)
                if answer.status == 0:
                    at += 1
                if answer.status != 500:
                    break
                if time.monotonic() > give_up_at:
                    record.given_up += 1
                    break
                time.sleep(_AGAIN_AFTER_S)

    threads = [threading.Thread(target=loop, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        record.wait_for(CLIENTS)
        yield record
    finally:
        record.is_over.set()
        for thread in threads:
            thread.join(2 * _TIMEOUT_S)
    record.captured = count_captures(bed) - before


def count_captures(bed: Bed) -> int:
    """Count the credits captured so far, after an audit that must find nothing."""
    settings = load_settings({}, data_dir=bed.folder / "audit", database_url=bed.database_url)
    with open_state(settings) as state, state.database.read() as connection:
        assert state.credits.audit() == ()
        captures = CREDIT_ENTRIES.c.kind == "capture"
        count_of = sa.select(sa.func.count()).select_from(CREDIT_ENTRIES).where(captures)
        return int(connection.execute(count_of).scalar_one())


def count_holds(bed: Bed) -> int:
    """Count the credits that are on hold for requests under way."""
    settings = load_settings({}, data_dir=bed.folder / "audit", database_url=bed.database_url)
    with open_state(settings) as state, state.database.read() as connection:
        count_of = sa.select(sa.func.count()).select_from(OPEN_HOLDS)
        return int(connection.execute(count_of).scalar_one())


def check(
    record: Record,
    expected: Mapping[tuple[int, int], str],
    lost: int = 0,
    captured: int | None = None,
) -> None:
    """Check that every result is that of a single machine, and that no answer was lost.

    Args:
        lost: answers that may be lost.
        captured: credits taken, where not one for each result.
    """
    assert {(each.picture, each.digest) for each in record.delivered()} == set(expected.items())
    assert len(record.lost()) == lost, record.lost()
    wanted = len(record.delivered()) if captured is None else captured
    assert record.captured == wanted
