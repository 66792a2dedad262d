import json
import random
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from tests.service.api.answers import assert_error, assert_request_id
from tests.service.api.raw import Connection
from tests.service.api.serving import MakeService, Service
from upscaled_models.registry import official_models, read_default_models

SHIPPED = [spec.name for spec in read_default_models()]


def place_official(service: Service, name: str, *, in_16_bits: bool = False) -> None:
    """Put something under an official file's name: what is in it is checked when it is loaded."""
    spec = next(spec for spec in official_models() if spec.name == name)
    if in_16_bits:
        assert spec.packaged is not None
        spec = spec.packaged
    service.settings.models_dir.mkdir(parents=True, exist_ok=True)
    (service.settings.models_dir / spec.file_name).write_bytes(b"weights")


def place_own(service: Service, name: str, *, scale: int = 4) -> None:
    own: Path = service.settings.models_dir / "own"
    own.mkdir(parents=True, exist_ok=True)
    (own / f"{name}.pth").write_bytes(b"weights")
    record: dict[str, Any] = {"file": f"{name}.pth", "sha256": "0" * 64, "size_bytes": 7}
    shape = {"features": 8, "layers": 2, "scale": scale}
    (own / f"{name}.json").write_text(json.dumps(record | {"family": "plain", "shape": shape}))


def list_models(service: Service) -> Any:
    answer = service.get("/v1/models", headers=service.headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_models_present_are_listed_with_their_properties(make_service: MakeService) -> None:
    service = make_service()
    place_official(service, "realesrgan-x4plus", in_16_bits=True)
    place_own(service, "mine")
    answer = service.get("/v1/models", headers=service.headers)
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert_request_id(answer)
    listed = {model["name"]: model for model in answer.json()["models"]}
    assert list(listed) == [*SHIPPED, "realesrgan-x4plus", "mine"]
    assert listed["realesrgan-x4plus"] == {
        "name": "realesrgan-x4plus",
        "native_scale": 4,
        "scales": [2, 4],
        "licence": "BSD-3-Clause",
        "bits": 16,
        "source": "official",
        "same_as": None,
        "denoise": False,
        "auto_scales": [4],
        "seconds_per_megapixel": {"2": None, "4": None},
    }
    assert listed["upscaled-x4"]["seconds_per_megapixel"] == {"2": None, "4": 1.23}
    assert listed["upscaled-x4-faithful"]["seconds_per_megapixel"] == {"2": None, "4": None}
    assert listed["upscaled-x2"]["seconds_per_megapixel"] == {"2": 1.0, "4": None}
    assert listed["upscaled-x2"]["auto_scales"] == [2]
    assert (listed["mine"]["source"], listed["mine"]["auto_scales"]) == ("user", [])


def test_the_models_of_auto_are_listed_best_first(service: Service) -> None:
    last = {
        "tempered_with": None,
        "most_input_px": None,
        "most_input_px_16_bits": None,
        "harmed_only": False,
    }
    first = {
        "tempered_with": "upscaled-x4-faithful",
        "most_input_px": 240_100,
        "most_input_px_16_bits": 60_000,
        "harmed_only": False,
    }
    between = {"most_input_px": 4_000_000, "most_input_px_16_bits": 1_000_000}
    assert list_models(service)["auto"] == {
        "2": [{"model": "upscaled-x2", **last}],
        "4": [
            {"model": "realesrgan-x4plus", **first},
            {"model": "upscaled-x4", **last, **between},
            {"model": "upscaled-x4-faithful", **last},
        ],
    }


def test_the_answer_validates_against_the_openapi_document(service: Service) -> None:
    document = service.app.openapi()
    operation = document["paths"]["/v1/models"]["get"]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema_rs.validate(schema | {"components": document["components"]}, list_models(service))


def test_a_model_with_a_damaged_record_does_not_hide_the_others(make_service: MakeService) -> None:
    service = make_service()
    place_own(service, "mine")
    (service.settings.models_dir / "own" / "broken.json").write_text("{")
    assert [model["name"] for model in list_models(service)["models"]] == [*SHIPPED, "mine"]


def test_a_key_is_needed_and_its_rate_is_charged(make_service: MakeService) -> None:
    service = make_service(rate_per_s=0.5, rate_burst=1)
    assert_error(service.get("/v1/models"), 401, "invalid_auth_token")
    list_models(service)
    refused = service.get("/v1/models", headers=service.headers)
    assert_error(refused, 429, "rate_limit_exceeded")
    assert refused.headers["Retry-After"] == "2"


# The header of a request.


def naming(service: Service, model: str) -> dict[str, str]:
    return service.headers | {"X-Upscale-Model": model}


@pytest.mark.parametrize("name", ["X-Upscale-Model", "x-upscale-model"])
def test_a_form_may_name_any_model_that_is_present(make_service: MakeService, name: str) -> None:
    service = make_service()
    place_official(service, "realesrgan-x4plus")
    for model in ("upscaled-x4", "upscaled-x2", "realesrgan-x4plus"):
        answer = service.upload(headers=service.headers | {name: model})
        assert answer.status_code == 200, answer.text
        assert service.executor.requests[-1].model == model
        assert answer.headers["X-Upscale-Model"] == model


def test_a_json_body_may_name_a_model_too(service: Service) -> None:
    own = service.upload().json()["result_url"]
    body = {"image_url": own, "scale": 2}
    answer = service.send_json(body, headers=naming(service, "upscaled-x4"))
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"result_url"}
    assert service.executor.requests[-1].model == "upscaled-x4"


@pytest.mark.parametrize("headers", [{}, {"X-Upscale-Model": "auto"}])
def test_auto_is_the_same_as_no_header(service: Service, headers: dict[str, str]) -> None:
    assert service.upload(headers=service.headers | headers).status_code == 200
    assert service.executor.requests[-1].model == ""


def test_a_model_added_while_the_service_runs_is_accepted_at_once(
    make_service: MakeService,
) -> None:
    service = make_service()
    refused = service.upload(headers=naming(service, "mine"))
    text = assert_error(refused, 400, "invalid_parameter")
    assert text == (
        "X-Upscale-Model: there is no model mine here; GET /v1/models lists those that are"
    )
    place_own(service, "mine")
    assert service.upload(headers=naming(service, "mine")).status_code == 200


@pytest.mark.parametrize("model", ["nonsense", "realesrgan-x4plus", "Upscaled-X4", "AUTO"])
def test_a_model_that_is_not_here_is_refused_and_nothing_is_charged(
    make_service: MakeService, model: str
) -> None:
    service = make_service(metering=True, credits=5)
    text = assert_error(service.upload(headers=naming(service, model)), 400, "invalid_parameter")
    assert model in text
    assert service.balance() == 5
    assert service.executor.requests == []


@pytest.mark.parametrize("scale", ["2", "4"])
def test_a_model_of_another_scale_is_refused(make_service: MakeService, scale: str) -> None:
    service = make_service()
    place_own(service, "thrice", scale=3)
    listed = {model["name"]: model for model in list_models(service)["models"]}
    assert (listed["thrice"]["scales"], listed["thrice"]["seconds_per_megapixel"]) == ([], {})
    answer = service.upload(headers=naming(service, "thrice"), data={"scale": scale})
    text = assert_error(answer, 400, "invalid_parameter")
    assert text == f"X-Upscale-Model: thrice, a model of scale 3, cannot make scale {scale}"


@pytest.mark.parametrize("length", [64, 65])
def test_a_model_name_has_at_most_64_characters(make_service: MakeService, length: int) -> None:
    service = make_service()
    place_own(service, "m" * length)
    answer = service.upload(headers=naming(service, "m" * length))
    if length == 64:
        assert answer.status_code == 200, answer.text
    else:
        assert "must be auto or the name" in assert_error(answer, 400, "invalid_parameter")


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b",", b"a b", b"upscaled-x4,", b"upscaled-x2, upscaled-x4", b'"auto"', b"-x", b".x"),
        *(b"../own/x", b"a/b", b"caf\xc3\xa9", b"\xff", b"\xe9", b"a\tb", b"x" * 9000, b"{}"),
        *(b"%61uto", b"auto;q=1", "ａｕｔｏ".encode()),
    ],
)
def test_an_impossible_model_name_is_refused_and_not_repeated(
    service: Service, value: bytes
) -> None:
    headers: dict[str, Any] = service.headers | {"X-Upscale-Model": value}
    text = assert_error(service.upload(headers=headers), 400, "invalid_parameter")
    assert text == (
        "X-Upscale-Model must be auto or the name of one model: at most 64 letters, digits, dots, "
        "hyphens and underscores"
    )


@pytest.mark.parametrize("second", ["upscaled-x2", "upscaled-x4", "auto", ""])
def test_two_headers_are_refused_also_where_they_agree(service: Service, second: str) -> None:
    body = json.dumps({"image_url": service.url, "scale": 2}).encode()
    with Connection(service) as connection:
        connection.send_head(
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            "X-Upscale-Model: upscaled-x4",
            f"X-Upscale-Model: {second}",
        )
        connection.send(body)
        answer = connection.receive()
    assert answer.status == 400
    expected = {"error": "X-Upscale-Model must be sent once", "error_code": "invalid_parameter"}
    assert json.loads(answer.body) == expected


def test_random_model_names_never_cause_an_internal_error(service: Service) -> None:
    chance = random.Random(5)
    allowed = [*range(0x20, 0x7F), *range(0x80, 0x100), 0x09]
    for _ in range(60):
        value = bytes(chance.choices(allowed, k=chance.randrange(1, 80)))
        headers: dict[str, Any] = service.headers | {"X-Upscale-Model": b"x" + value}
        assert_error(service.upload(headers=headers), 400, "invalid_parameter")


def test_a_bad_scale_is_reported_before_a_bad_model(service: Service) -> None:
    answer = service.upload(headers=naming(service, "nonsense"), data={"scale": "3"})
    assert assert_error(answer, 400, "invalid_parameter") == "scale must be 2 or 4"


def test_a_bad_model_is_refused_before_a_credit_is_held(make_service: MakeService) -> None:
    service = make_service(metering=True, credits=0)
    answer = service.upload(headers=naming(service, "nonsense"))
    assert_error(answer, 400, "invalid_parameter")


# The headers of an answer.


@pytest.mark.parametrize("accept", ["application/json", "image/*"])
def test_both_kinds_of_response_name_the_model(service: Service, accept: str) -> None:
    answer = service.upload(headers=service.headers | {"Accept": accept})
    assert answer.headers["X-Upscale-Model"] == "resize"
    assert "X-Upscale-Tempered-With" not in answer.headers


@pytest.mark.parametrize("accept", ["application/json", "image/*"])
def test_both_kinds_of_response_name_the_model_of_tempering(
    make_service: MakeService, accept: str
) -> None:
    service = make_service()
    service.executor.tempered_with = "upscaled-x4-faithful"
    answer = service.upload(headers=service.headers | {"Accept": accept})
    assert answer.headers["X-Upscale-Tempered-With"] == "upscaled-x4-faithful"


def test_a_refusal_names_no_model(service: Service) -> None:
    answer = service.upload(b"garbage", headers=naming(service, "upscaled-x4"))
    assert_error(answer, 400, "malformed_image")
    assert "X-Upscale-Model" not in answer.headers
