"""Reusable results on both databases."""

from dataclasses import replace

import sqlalchemy as sa

from tests.service.state.conftest import key_with
from upscaled.state import State
from upscaled.state.reuse import ReusableResult
from upscaled.state.schema import REUSABLE_RESULTS

RESULT = ReusableResult("a.jpg", "image/jpeg", 8, 6, "upscaled-x2", "torch float32", "")


def test_a_result_is_found_by_its_key_and_fingerprint(store: State) -> None:
    key_id, other_id = key_with(store, 0), key_with(store, 0, "other")
    store.reusable.remember(key_id, "f", RESULT)
    assert store.reusable.find(key_id, "f") == RESULT
    assert store.reusable.find(key_id, "g") is None
    assert store.reusable.find(other_id, "f") is None


def test_the_later_of_two_results_is_kept(store: State) -> None:
    key_id, later = key_with(store, 0), replace(RESULT, file_name="b.jpg")
    store.reusable.remember(key_id, "f", RESULT)
    store.reusable.remember(key_id, "f", later)
    assert store.reusable.find(key_id, "f") == later


def test_expired_results_are_removed_and_no_others(store: State) -> None:
    key_id = key_with(store, 0)
    for fingerprint in ("old", "new"):
        store.reusable.remember(key_id, fingerprint, RESULT)
    row = REUSABLE_RESULTS.c
    with store.database.write() as connection:
        aged = sa.update(REUSABLE_RESULTS).where(row.fingerprint == "old")
        connection.execute(aged.values(stored_at_s=row.stored_at_s - 100))
    assert store.reusable.remove_expired(101) == 0
    assert store.reusable.remove_expired(99) == 1
    assert store.reusable.find(key_id, "old") is None
    assert store.reusable.find(key_id, "new") == RESULT
