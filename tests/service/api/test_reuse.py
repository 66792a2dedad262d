"""Reuse of results over a real socket: computed once, charged each time."""

import os
from typing import Any

import pytest
import sqlalchemy as sa

from tests.service.api.answers import assert_error
from tests.service.api.executors import LargeExecutor, ResizingExecutor
from tests.service.api.pictures import picture
from tests.service.api.serving import MakeService, Service
from upscaled.api.memory import build_budget
from upscaled.pool.executor import UpscaleRequest
from upscaled.state import folder_results
from upscaled.state.schema import REUSABLE_RESULTS
from upscaled.upscale.result import Result
from upscaled_models.families.plain import plain_shape
from upscaled_models.registry import ModelFile

IMAGE = {"Accept": "image/*"}


@pytest.fixture
def service(make_service: MakeService) -> Service:
    return make_service(metering=True, credits=5, reuse_results=True)


def made(service: Service) -> int:
    return len(service.executor.requests)


def test_the_same_picture_is_computed_once_and_charged_twice(service: Service) -> None:
    first, second = service.upload(), service.upload()
    assert first.status_code == second.status_code == 200
    assert "X-Upscale-Reused" not in first.headers
    assert second.headers["X-Upscale-Reused"] == "true"
    assert second.headers["X-Upscale-Model"] == first.headers["X-Upscale-Model"]
    urls = [answer.json()["result_url"] for answer in (first, second)]
    assert len(set(urls)) == 2
    contents = [service.get(url.removeprefix(service.url)).content for url in urls]
    assert contents[0] == contents[1] != b""
    assert (service.balance(), made(service)) == (3, 1)
    assert service.state.credits.audit() == ()


def test_an_image_that_is_answered_directly_is_used_again(service: Service) -> None:
    answers = [service.upload(headers=service.headers | IMAGE) for _ in range(2)]
    assert answers[0].content == answers[1].content
    assert answers[1].headers["X-Upscale-Reused"] == "true"
    assert (service.balance(), made(service)) == (3, 1)


def test_an_image_and_a_url_share_one_result(service: Service) -> None:
    image = service.upload(headers=service.headers | IMAGE)
    url = service.upload().json()["result_url"]
    assert service.get(url.removeprefix(service.url)).content == image.content
    assert made(service) == 1


def test_a_faithful_model_is_named_again(make_service: MakeService) -> None:
    executor = ResizingExecutor()
    executor.tempered_with = "upscaled-x4-faithful"
    service = make_service(executor, reuse_results=True)
    answers = [service.upload() for _ in range(2)]
    assert [each.headers["X-Upscale-Tempered-With"] for each in answers] == [
        "upscaled-x4-faithful"
    ] * 2


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {"image": ("photo.png", picture(81, 64))}},
        {"data": {"scale": "4"}},
        {"data": {"scale": "2", "x_upscale_format": "png"}},
        {"data": {"scale": "2", "x_upscale_max_side": "100"}},
        {"data": {"scale": "2", "x_upscale_model": "upscaled-x2"}},
    ],
)
def test_what_differs_in_its_result_is_computed(service: Service, changes: dict[str, Any]) -> None:
    assert service.upload().status_code == 200
    answer = service.upload(**changes)
    assert answer.status_code == 200, answer.text
    assert "X-Upscale-Reused" not in answer.headers
    assert made(service) == 2


def test_a_result_larger_than_the_memory_for_images_is_computed_again(
    make_service: MakeService,
) -> None:
    service = make_service(
        LargeExecutor(), reuse_results=True, max_file_bytes=1_000_000, max_queue=1
    )
    assert build_budget(service.settings).limit_bytes < LargeExecutor.size_bytes
    assert [service.upload().status_code for _ in range(2)] == [200, 200]
    assert made(service) == 2


def test_the_result_is_not_reused_for_another_key(service: Service) -> None:
    assert service.upload().status_code == 200
    other = service.state.keys.create("other", credits=1)
    answer = service.upload(headers={"X-API-KEY": other})
    assert answer.status_code == 200
    assert "X-Upscale-Reused" not in answer.headers
    assert made(service) == 2


def test_a_missing_result_is_computed_anew_and_then_used(service: Service) -> None:
    assert service.upload().status_code == 200
    for path in service.settings.results_dir.rglob("*.jpg"):
        path.unlink()
    assert "X-Upscale-Reused" not in service.upload().headers
    assert service.upload().headers["X-Upscale-Reused"] == "true"
    assert made(service) == 2


@pytest.mark.parametrize("checked_first_bytes", [0, 2**20])
def test_a_damaged_result_is_computed_anew_and_holds_no_memory_meanwhile(
    service: Service, monkeypatch: pytest.MonkeyPatch, checked_first_bytes: int
) -> None:
    monkeypatch.setattr(folder_results, "CHECKED_FIRST_BYTES", checked_first_bytes)
    held_bytes: list[int] = []
    upscale, budget = service.executor.upscale, service.app.state.context.budget

    async def note_memory(source: bytes, request: UpscaleRequest) -> Result:
        held_bytes.append(budget.held_bytes)
        return await upscale(source, request)

    monkeypatch.setattr(service.executor, "upscale", note_memory)
    assert service.upload().status_code == 200
    (path,) = service.settings.results_dir.rglob("*.jpg")
    if not os.listxattr(path):
        pytest.skip("the file system of temporary files has no extended attributes")
    path.write_bytes(bytes(path.stat().st_size))
    assert "X-Upscale-Reused" not in service.upload().headers
    assert held_bytes[0] == held_bytes[1]
    assert not path.exists()


def test_a_key_without_credits_is_refused_a_stored_result(make_service: MakeService) -> None:
    service = make_service(metering=True, credits=1, reuse_results=True)
    assert service.upload().status_code == 200
    assert_error(service.upload(), 403, "insufficient_api_credits")


def test_without_the_setting_each_picture_is_computed(make_service: MakeService) -> None:
    service = make_service()
    for _ in range(2):
        assert "X-Upscale-Reused" not in service.upload(headers=service.headers | IMAGE).headers
    assert made(service) == 2
    assert service.stored_files() == []


def test_a_table_that_cannot_be_read_costs_no_answer(service: Service) -> None:
    with service.state.database.write() as connection:
        connection.execute(sa.text("ALTER TABLE reusable_results RENAME TO away"))
    assert service.upload().status_code == 200
    with service.state.database.write() as connection:
        connection.execute(sa.text("ALTER TABLE away RENAME TO reusable_results"))
    assert made(service) == 1


def test_a_restart_with_another_setting_computes_anew(make_service: MakeService) -> None:
    service = make_service(reuse_results=True)
    assert service.upload().status_code == 200
    again = make_service(reuse_results=True, jpeg_quality=80)
    with service.state.database.read() as connection:
        row = connection.execute(sa.select(REUSABLE_RESULTS)).one()
    with again.state.database.write() as connection:
        connection.execute(sa.insert(REUSABLE_RESULTS).values(**row._mapping))
    assert "X-Upscale-Reused" not in again.upload().headers
    assert made(again) == 1


def test_a_model_with_other_weights_under_the_same_name_computes_anew(service: Service) -> None:
    """As where a model of one's own is removed and another added."""
    record = service.settings.models_dir / "own" / "first.json"
    record.parent.mkdir(parents=True)
    facts = {"file": "first.safetensors", "size_bytes": 9, "family": "plain"}
    shape = plain_shape(scale=2, layers=2, features=8)
    for digit, is_reused in (("a", False), ("a", True), ("b", False)):
        model = ModelFile.model_validate({**facts, "sha256": digit * 64, "shape": shape})
        record.write_text(model.model_dump_json())
        assert ("X-Upscale-Reused" in service.upload().headers) == is_reused


def test_the_sweep_removes_records_of_expired_results(service: Service) -> None:
    assert service.upload().status_code == 200
    reusable = service.state.reusable
    assert reusable.remove_expired(3600) == 0
    with service.state.database.write() as connection:
        row = REUSABLE_RESULTS.c
        aged = sa.update(REUSABLE_RESULTS).values(stored_at_s=row.stored_at_s - 3601)
        connection.execute(aged)
    service.state.sweep()
    with service.state.database.read() as connection:
        assert connection.execute(sa.select(REUSABLE_RESULTS)).all() == []
