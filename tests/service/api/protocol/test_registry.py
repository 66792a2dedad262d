"""Limits on connections, and the choice of the one that is evicted."""

import asyncio
import ipaddress
import logging
import resource
from pathlib import Path

import pytest

from upscaled.api.protocol.registry import (
    RESERVED_DESCRIPTORS,
    ConnectionLimits,
    Connections,
    build_admin_connections,
    build_connections,
)
from upscaled.config import load_settings


class Idle:
    """Connection that records the calls of the registry."""

    def __init__(self, *, is_answered: bool = True) -> None:
        self.is_evicted = False
        self.checks = 0
        self._is_answered = is_answered

    def check(self, now_s: float) -> None:
        self.checks += 1

    def evict(self) -> bool:
        self.is_evicted = self._is_answered
        return self.is_evicted


class Broken(Idle):
    """A connection whose check fails."""

    def check(self, now_s: float) -> None:
        super().check(now_s)
        raise ValueError("a bug")


def fill(registry: Connections, *addresses: str) -> list[Idle]:
    made = []
    for address in addresses:
        made.append(Idle())
        assert registry.admit(made[-1], address)
    return made


async def test_beyond_the_limit_the_longest_idle_connection_is_evicted() -> None:
    registry = Connections(ConnectionLimits(total=3))
    first, second, third = fill(registry, "1.1.1.1", "2.2.2.2", "3.3.3.3")
    assert not any(each.is_evicted for each in (first, second, third))
    registry.note_busy(first)
    registry.note_idle(first)  # now the one that was used last
    fill(registry, "4.4.4.4")
    assert (first.is_evicted, second.is_evicted, third.is_evicted) == (False, True, False)
    assert len(registry) == 3


async def test_a_new_connection_is_refused_where_none_is_idle(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    registry = Connections(ConnectionLimits(total=2))
    busy = fill(registry, "1.1.1.1", "2.2.2.2")
    for each in busy:
        registry.note_busy(each)
    for _ in range(100):
        assert not registry.admit(Idle(), "3.3.3.3")
    assert len(caplog.records) == 1  # a flood of connections is none of lines
    registry.remove(busy[0])
    assert registry.admit(Idle(), "3.3.3.3")


async def test_a_connection_with_an_unread_response_is_not_evicted() -> None:
    registry = Connections(ConnectionLimits(total=2, per_address=1))
    taking = Idle(is_answered=False)
    assert registry.admit(taking, "1.1.1.1")
    (idle,) = fill(registry, "2.2.2.2")
    fill(registry, "3.3.3.3")
    assert (taking.is_evicted, idle.is_evicted) == (False, True)
    assert not registry.admit(Idle(), "1.1.1.1")
    assert not taking.is_evicted
    assert len(registry) == 2


async def test_a_check_that_fails_ends_the_checks_of_no_other_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("upscaled.api.protocol.registry.CHECK_EVERY_S", 0.005)
    registry = Connections(ConnectionLimits())
    broken = Broken()
    assert registry.admit(broken, "1.1.1.1")
    (sound,) = fill(registry, "1.1.1.1")
    while sound.checks < 3:
        await asyncio.sleep(0.005)
    registry.remove(sound)
    assert broken.checks == 1
    assert [record.exc_text for record in caplog.records if "a bug" in (record.exc_text or "")]


async def test_an_address_fills_its_own_share_and_no_other() -> None:
    registry = Connections(ConnectionLimits(total=100, per_address=2))
    (other,) = fill(registry, "2.2.2.2")
    mine = fill(registry, "1.1.1.1", "1.1.1.1")
    third = fill(registry, "1.1.1.1")[0]
    assert (other.is_evicted, mine[0].is_evicted, mine[1].is_evicted) == (False, True, False)
    for each in (mine[1], third):
        registry.note_busy(each)
    assert not registry.admit(Idle(), "1.1.1.1")
    assert not other.is_evicted
    fill(registry, "2.2.2.2", "3.3.3.3")


@pytest.mark.parametrize(
    ("limits", "setting"),
    [
        (ConnectionLimits(total=1, per_address=2), "UPSCALED_MAX_CONNECTIONS"),
        (ConnectionLimits(total=2, per_address=1), "UPSCALED_MAX_CONNECTIONS_PER_ADDRESS"),
    ],
)
async def test_the_log_names_the_limit_that_refused_a_connection_and_the_address(
    limits: ConnectionLimits, setting: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Connections(limits)
    (first,) = fill(registry, "1.1.1.1")
    registry.note_busy(first)
    assert not registry.admit(Idle(), "1.1.1.1")
    (record,) = caplog.records
    assert record.getMessage() == f"too many connections, see {setting}"
    assert vars(record)["fields"]["address"] == "1.1.1.1"


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:1.1.1.1", "1.1.1.1", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("1.1.1.1", "1.1.1.2", False),
    ],
)
async def test_addresses_of_one_network_count_together(one: str, other: str, is_same: bool) -> None:
    registry = Connections(ConnectionLimits(per_address=1))
    (first,) = fill(registry, one)
    registry.note_busy(first)
    assert registry.admit(Idle(), other) is not is_same


async def test_trusted_proxies_and_unknown_addresses_are_bounded_only_in_all() -> None:
    trusted = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
    registry = Connections(ConnectionLimits(total=8, per_address=1, trusted=trusted))
    made = fill(registry, *["127.0.0.1"] * 3, *["::1"] * 2, *["::ffff:127.0.0.2"] * 2, "")
    assert not any(each.is_evicted for each in made)
    fill(registry, "127.0.0.1")
    assert [each.is_evicted for each in made] == [True] + [False] * 7


async def test_deadlines_are_checked_while_there_is_a_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("upscaled.api.protocol.registry.CHECK_EVERY_S", 0.005)
    registry = Connections(ConnectionLimits())
    (first,) = fill(registry, "1.1.1.1")
    while first.checks < 3:
        await asyncio.sleep(0.005)
    registry.remove(first)
    registry.remove(first)
    await asyncio.sleep(0.03)
    checks = first.checks
    (second,) = fill(registry, "1.1.1.1")
    while second.checks < 2:
        await asyncio.sleep(0.005)
    assert first.checks == checks
    registry.remove(second)


@pytest.mark.parametrize(("descriptors", "total"), [(10_000, 1000), (256, 128), (64, 16)])
def test_descriptors_are_reserved_for_other_uses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, descriptors: int, total: int
) -> None:
    assert RESERVED_DESCRIPTORS == 128
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    assert build_connections(load_settings({}, data_dir=tmp_path)).limits.total == total


@pytest.mark.parametrize(("set_to", "descriptors"), [(1000, 1160), (1000, 400), (10, 1160)])
def test_a_listener_of_administration_and_the_services_fit_into_the_descriptors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, set_to: int, descriptors: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    settings = load_settings(
        {"UPSCALED_ADMIN_KEYS": f"a:{'0' * 64}", "UPSCALED_ADMIN_PORT": "8001"},
        data_dir=tmp_path,
        max_connections=set_to,
    )
    total = build_connections(settings).limits.total
    administration = build_admin_connections(settings).limits.total
    assert total + administration + RESERVED_DESCRIPTORS <= descriptors
    assert (total, administration) == {
        (1000, 1160): (1000, 32),
        (1000, 400): (240, 32),
        (10, 1160): (10, 10),
    }[set_to, descriptors]


def test_the_limits_of_connections_are_those_of_the_settings(tmp_path: Path) -> None:
    environment = {
        "UPSCALED_MAX_CONNECTIONS": "7",
        "UPSCALED_MAX_CONNECTIONS_PER_ADDRESS": "3",
        "UPSCALED_TRUSTED_PROXIES": "10.0.0.0/8, 192.0.2.1",
        "UPSCALED_WRITE_TIMEOUT_S": "9.5",
    }
    limits = build_connections(load_settings(environment, data_dir=tmp_path)).limits
    trusted = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("192.0.2.1/32"))
    assert limits == ConnectionLimits(7, 3, trusted, 9.5)


def test_the_list_of_trusted_proxies_may_be_empty(tmp_path: Path) -> None:
    environment = {"UPSCALED_TRUSTED_PROXIES": "none"}
    assert load_settings(environment, data_dir=tmp_path).trusted_proxies == ()
