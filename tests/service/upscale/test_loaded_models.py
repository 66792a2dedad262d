import os
import threading
from collections.abc import Callable
from typing import cast

import pytest

from tests.service.upscale.box_engine import BoxEngine
from upscaled.upscale.loaded_models import LoadedModels
from upscaled_models.backends.base import Engine


def box(name: str) -> Engine:
    return cast(Engine, BoxEngine(model=name))


def counting(opened: list[str]) -> Callable[[str], Engine]:
    def open_engine(name: str) -> Engine:
        opened.append(name)
        return box(name)

    return open_engine


def test_a_model_is_opened_once_when_it_is_first_needed() -> None:
    opened: list[str] = []
    with LoadedModels(counting(opened)) as models:
        assert models.loaded() == ()
        with models.use("a") as first, models.use("a") as second:
            assert first is second
        with models.use("a") as third:
            assert third is first
        assert (opened, models.loaded()) == (["a"], ("a",))


def test_engines_are_opened_by_one_thread_of_lower_priority() -> None:
    seen: list[tuple[int, int]] = []

    def open_engine(name: str) -> Engine:
        thread = threading.get_native_id()
        seen.append((thread, os.getpriority(os.PRIO_PROCESS, thread)))
        return box(name)

    with LoadedModels(open_engine, niceness=2) as models:
        for name in "ab":
            with models.use(name):
                pass
    ((thread, niceness),) = set(seen)
    assert thread != threading.get_native_id()
    assert niceness == os.getpriority(os.PRIO_PROCESS, 0) + 2


def test_an_opening_that_fails_raises_in_its_caller_and_is_tried_again() -> None:
    tries: list[str] = []

    def open_engine(name: str) -> Engine:
        tries.append(name)
        if len(tries) == 1:
            raise OSError("no disk")
        return box(name)

    with LoadedModels(open_engine) as models:
        with pytest.raises(OSError, match="no disk"), models.use("a"):
            pass
        assert models.loaded() == ()
        with models.use("a") as engine:
            assert engine.info.model == "a"


def test_idle_models_are_unloaded_but_for_those_in_use_and_those_kept() -> None:
    opened: list[str] = []
    with LoadedModels(counting(opened), kept=frozenset({"small"})) as models:
        for name in ("small", "idle", "used"):
            with models.use(name):
                pass
        models.unload_idle(60)
        assert models.loaded() == ("small", "idle", "used"), "not idle for so long"
        with models.use("used"):
            models.unload_idle(0)
            assert models.loaded() == ("small", "used")
        with models.use("idle"):
            assert opened == ["small", "idle", "used", "idle"]


def test_idle_models_are_unloaded_after_the_time_of_the_setting() -> None:
    with LoadedModels(box, idle_unload_s=0.05) as models:
        with models.use("a"):
            pass
        for _ in range(200):
            if not models.loaded():
                break
            threading.Event().wait(0.02)
        assert models.loaded() == ()


def test_another_engine_of_a_model_is_adopted_between_uses() -> None:
    opened: list[str] = []
    other = box("a")
    with LoadedModels(counting(opened)) as models:
        with models.use("a") as first:
            models.adopt("a", other)
            with models.use("a") as second:
                assert second is other
            assert first is not other
        with models.use("a") as third:
            assert third is other
        assert opened == ["a"]


def test_an_engine_of_an_unloaded_model_is_not_adopted() -> None:
    with LoadedModels(counting([])) as models:
        models.adopt("a", box("a"))
        assert models.loaded() == ()


def test_few_strengths_are_kept_and_the_one_used_longest_ago_is_unloaded() -> None:
    opened: list[str] = []
    with LoadedModels(counting(opened), kept=frozenset({"a@1.0"})) as models:
        for name in ("a", "a@1.0", "a@0.1", "a@0.2", "a@0.3", "a@0.1", "a@0.4"):
            with models.use(name):
                pass
        assert set(models.loaded()) == {"a", "a@1.0", "a@0.1", "a@0.3", "a@0.4"}
        with models.use("a@0.5"), models.use("a@0.6"), models.use("a@0.7"), models.use("a@0.8"):
            in_use = {"a@0.5", "a@0.6", "a@0.7", "a@0.8"}
            assert set(models.loaded()) == {"a", "a@1.0"} | in_use
        assert set(models.loaded()) == {"a", "a@1.0", "a@0.5", "a@0.6", "a@0.7"}
        assert opened.count("a@0.1") == 1
