"""The page's server: it sends no labels, takes votes once each, and answers this machine alone."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests

from scripts.evaluation.blind.pairs import Pair
from scripts.evaluation.blind.server import BlindServer
from scripts.evaluation.blind.tally import Tally
from upscaled_models.quantise.tracks import decode


def crop(level: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.full((8, 8, 3), level, np.uint8)


PAIRS = [
    Pair(
        "face", "clean", left="secret-one", right="secret-two", left_px=crop(10), right_px=crop(20)
    ),
    Pair(
        "face", "jpeg", left="secret-two", right="secret-one", left_px=crop(30), right_px=crop(40)
    ),
]


@pytest.fixture
def tally(tmp_path: Path) -> Tally:
    return Tally.open(tmp_path / "tally.json", {"upscalers": ["secret-one", "secret-two"]})


@pytest.fixture
def server(tally: Tally) -> Iterator[BlindServer]:
    with BlindServer(PAIRS, tally) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def post(server: BlindServer, pair: object, choice: str) -> requests.Response:
    return requests.post(f"{server.url}votes", json={"pair": pair, "choice": choice}, timeout=60)


def test_each_side_has_its_own_crop(server: BlindServer) -> None:
    levels = [
        int(decode(requests.get(f"{server.url}pairs/{n}/{side}.png", timeout=60).content)[0, 0, 0])
        for n in (0, 1)
        for side in ("left", "right")
    ]
    assert levels == [10, 20, 30, 40]


def test_nothing_names_the_upscalers_before_the_last_vote(server: BlindServer) -> None:
    said = [requests.get(f"{server.url}{path}", timeout=60) for path in ("", "state")]
    said += [requests.get(f"{server.url}pairs/0/left.png", timeout=60), post(server, 0, "left")]
    assert all(b"secret" not in answer.content for answer in said)
    assert "secret" not in str([answer.headers for answer in said])
    assert not server.finished.is_set()
    assert post(server, 1, "right").json()["summary"]["wins"] == {"secret-one": 2, "secret-two": 0}
    assert server.finished.is_set()


def test_the_state_names_the_next_open_pair_and_no_difference_is_a_vote(
    server: BlindServer, tally: Tally
) -> None:
    assert post(server, 1, "none").json() == {"total": 2, "judged": 1, "next": 0, "summary": None}
    assert tally.votes[1].preferred == ""


@pytest.mark.parametrize(
    ("pair", "choice"), [(2, "left"), (-1, "left"), (0, "both"), ("x", "left"), (None, "left")]
)
def test_an_invalid_vote_is_refused(
    server: BlindServer, tally: Tally, pair: object, choice: str
) -> None:
    assert post(server, pair, choice).status_code == 400
    assert tally.votes == {}


@pytest.mark.parametrize("path", ["pairs/2/left.png", "pairs/-1/left.png", "pairs/0/x.png", "etc"])
def test_an_unknown_address_is_answered_404(server: BlindServer, path: str) -> None:
    assert requests.get(f"{server.url}{path}", timeout=60).status_code == 404


def test_other_sites_pages_are_refused(server: BlindServer, tally: Tally) -> None:
    foreign = requests.get(f"{server.url}state", headers={"Host": "evil.example"}, timeout=60)
    assert foreign.status_code == 403
    form = requests.post(f"{server.url}votes", data='{"pair": 0, "choice": "left"}', timeout=60)
    assert form.status_code == 404
    assert tally.votes == {}
