"""Progress of a request at one front end, watched at another one of the same PostgreSQL."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from tests.service.api.answers import assert_error
from tests.service.api.routes.test_progress import TILES, SteppingExecutor, read_events, send, watch
from tests.service.api.serving import MakeService, Service
from tests.service.api.waiting import wait_until
from upscaled.api.progress import RELAY_PATH, TOKEN_HEADER
from upscaled.state.database import NOW_S
from upscaled.state.opening import longest_request_s
from upscaled.state.schema import UNDER_WAY
from upscaled.state.under_way import RequestUnderWay


@dataclass
class Pair:
    """Two front ends of one database; `owner` has the requests, `other` is called for them."""

    owner: Service
    other: Service
    executor: SteppingExecutor

    def rows(self) -> list[RequestUnderWay]:
        columns = UNDER_WAY.c
        query = sa.select(columns.key_id, columns.request_id, columns.front_end_url, columns.token)
        with self.owner.state.database.read() as connection:
            return [RequestUnderWay(*row) for row in connection.execute(query)]


@pytest.fixture
def pair(server_url: str, make_service: MakeService) -> Iterator[Pair]:
    executor = SteppingExecutor()
    owner = make_service(executor, database_url=server_url, advertised_url="http://unknown")
    other = make_service(database_url=server_url, advertised_url="http://unknown", key=owner.key)
    for each in (owner, other):
        each.app.state.context.relay.own_url = each.url  # known once it listens
        each.app.state.context.progress.arrival_wait_s = 0.05
    yield Pair(owner, other, executor)
    executor.go_on(1000)


def test_another_front_end_shows_the_tiles_of_a_request_to_its_end(pair: Pair) -> None:
    with ThreadPoolExecutor(1) as thread:
        sent = thread.submit(send, pair.owner, "my-1")
        wait_until(lambda: pair.rows() != [])
        with watch(pair.other, "my-1") as answer:
            assert answer.status_code == 200
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            events = read_events(answer)
            next(events)
            pair.executor.go_on(1000)
            seen = list(events)
        assert sent.result().status_code == 200
    assert seen[-1] == ("end", {"error_code": None})
    assert seen[-2][1]["tiles_done"] == TILES
    assert pair.rows() == []


def test_a_request_that_starts_after_its_watcher_is_found_on_another_front_end(pair: Pair) -> None:
    pair.other.app.state.context.progress.arrival_wait_s = 2
    with ThreadPoolExecutor(2) as threads:
        watching = threads.submit(watch, pair.other, "late")
        sent = threads.submit(send, pair.owner, "late")
        with watching.result() as answer:
            assert answer.status_code == 200
            pair.executor.go_on(1000)
            assert list(read_events(answer))[-1][0] == "end"
        assert sent.result().status_code == 200


def test_another_key_does_not_see_the_request(pair: Pair) -> None:
    other_key = pair.owner.state.keys.create("other")
    with ThreadPoolExecutor(1) as thread:
        sent = thread.submit(send, pair.owner, "mine")
        wait_until(lambda: pair.rows() != [])
        assert_error(watch(pair.other, "mine", other_key), 404, "not_found")
        pair.executor.go_on(1000)
        assert sent.result().status_code == 200


def test_only_a_token_of_the_database_opens_the_internal_path(pair: Pair) -> None:
    with ThreadPoolExecutor(1) as thread:
        sent = thread.submit(send, pair.owner, "mine")
        wait_until(lambda: pair.rows() != [])
        (row,) = pair.rows()
        own_token = {TOKEN_HEADER: row.token}
        for headers in ({}, {TOKEN_HEADER: ""}, {TOKEN_HEADER: row.token[:-1]}, pair.owner.headers):
            assert_error(pair.owner.get(RELAY_PATH, headers=headers), 404, "not_found")
        assert_error(pair.other.get(RELAY_PATH, headers=own_token), 404, "not_found")
        pair.executor.go_on(1000)
        assert sent.result().status_code == 200
    assert_error(pair.owner.get(RELAY_PATH, headers=own_token), 404, "not_found")


def test_a_request_without_an_id_of_its_client_is_neither_tracked_nor_announced(pair: Pair) -> None:
    with ThreadPoolExecutor(1) as thread:
        sent = thread.submit(pair.owner.upload)
        wait_until(lambda: pair.executor.images == 1)
        pair.executor.go_on(1)
        assert pair.rows() == []
        assert pair.owner.app.state.context.progress._in_flight == {}
        pair.executor.go_on(1000)
        assert sent.result().status_code == 200


def test_a_front_end_that_cannot_be_reached_counts_as_without_the_request(pair: Pair) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    gone = RequestUnderWay(1, "gone", f"http://127.0.0.1:{port}", "token")
    pair.owner.state.under_way.add(gone)
    assert_error(watch(pair.other, "gone"), 404, "not_found")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 404 Not Found\r\n\r\n", b"x" * 100_000])
def test_an_odd_answer_of_a_front_end_is_as_if_it_had_nothing(pair: Pair, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def reply() -> None:
            for _ in range(2):
                client, _ = listener.accept()
                with client:
                    client.recv(1000)
                    client.sendall(answer)

        replying = threading.Thread(target=reply)
        replying.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        pair.owner.state.under_way.add(RequestUnderWay(1, "odd", url, "token"))
        assert_error(watch(pair.other, "odd"), 404, "not_found")
        replying.join()


def test_events_that_break_off_end_the_answer_without_an_end(pair: Pair) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def reply() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(1000)
                client.sendall(
                    b'HTTP/1.0 200 OK\r\n\r\nevent: progress\ndata: {"stage": "queue"}\n\n'
                )

        replying = threading.Thread(target=reply)
        replying.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        pair.owner.state.under_way.add(RequestUnderWay(1, "dying", url, "token"))
        with watch(pair.other, "dying") as answer:
            assert list(read_events(answer)) == [("progress", {"stage": "queue"})]
        replying.join()


def test_without_an_address_a_front_end_shows_its_own_requests_alone(
    server_url: str, make_service: MakeService
) -> None:
    executor = SteppingExecutor()
    service = make_service(executor, database_url=server_url)
    with ThreadPoolExecutor(1) as thread:
        sent = thread.submit(send, service, "my-1")
        wait_until(lambda: len(service.app.state.context.progress._in_flight) == 1)
        assert service.state.under_way.find(1, "my-1") is None
        with watch(service, "my-1") as answer:
            executor.go_on(1000)
            assert list(read_events(answer))[-1][0] == "end"
        assert sent.result().status_code == 200


def test_of_two_requests_with_one_id_the_later_is_tracked_when_the_first_ends(pair: Pair) -> None:
    under_way = pair.owner.state.under_way
    first, later = (RequestUnderWay(1, "same", f"http://{name}", name) for name in ("a", "b"))
    under_way.add(first)
    under_way.add(later)
    under_way.remove(first)
    assert under_way.find(1, "same") == later
    under_way.remove(later)
    assert under_way.find(1, "same") is None


def test_requests_older_than_any_can_last_are_swept(pair: Pair) -> None:
    under_way = pair.owner.state.under_way
    for name, age_s in (("old", longest_request_s(pair.owner.settings) + 10), ("new", 0)):
        under_way.add(RequestUnderWay(1, name, "http://a", name))
        with pair.owner.state.database.write() as connection:
            named = sa.update(UNDER_WAY).where(UNDER_WAY.c.request_id == name)
            connection.execute(named.values(begun_at_s=NOW_S - int(age_s)))
    under_way.sweep()
    assert [row.request_id for row in pair.rows()] == ["new"]
