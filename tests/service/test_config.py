"""The settings: each on both sides of its limits, and a wrong one named with its value."""

import ipaddress
import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from pydantic import ValidationError

from upscaled.config import (
    ALIASES,
    PREFIX,
    Settings,
    SettingsError,
    describe_settings,
    find_near_names,
    load_settings,
)
from upscaled.config.loading import SECRETS
from upscaled.image.output import MAX_OUTPUT_SIDE_PX

# name: (values that are taken, values that are refused), as they stand in the environment
LIMITS: dict[str, tuple[list[str], list[str]]] = {
    "data_dir": (["/data", "relative"], []),
    "database_url": (["postgresql://u:p@h/d"], []),
    "database_password": (["p@ss/w:rd"], []),
    "database_timeout_s": (["1", "25"], ["0", "26", "1.5"]),
    "first_key_file": (["/run/secrets/first", "~/first.key"], []),
    "host": (["127.0.0.1", "::", "localhost"], []),
    "port": (["0", "8351", "65535"], ["-1", "65536", "http", "tcp:8000"]),
    "tls_cert": (["/etc/upscaled/fullchain.pem", "~/cert.pem"], []),
    "tls_key": (["/etc/upscaled/privkey.pem"], []),
    "auth": (["key", "none"], ["None", "off", "none\n", "keys"]),
    "allowed_hosts": (
        ["upscale.lan", "10.0.0.5,fd00::1", "my_host"],
        ["https://upscale.lan", "upscale.lan:8000", "*", "*.lan", "a..b", "[::1]"],
    ),
    "public_base_url": (
        [
            "https://a.example",
            "http://a",
            "https://a.example/base",
            "http://[::1]:8000",
            "https://a:65535",
        ],
        [
            "a.example",
            "ftp://a.example",
            "https://",
            "https:///x",
            "https://a?q=1",
            "https://a#f",
            "https://u@a",
            "javascript:alert(1)",
            "https://up scale.example",
            "https://a:70000",
        ],
    ),
    "advertised_url": (["http://10.0.0.5:8000", "https://a/base"], ["10.0.0.5", "ftp://a"]),
    "model_x2": (["auto", "realesrgan-x2plus"], []),
    "model_x4": (["auto", "realesrgan-x4plus"], []),
    "packaged_models": (["true", "false"], ["2", "maybe"]),
    "auto_budget_s": (["0", "0.5", "86400"], ["-0.001", "86400.5", "nan", "inf", "long"]),
    "temper": (
        ["auto", "off", "0", "1", "0.25", ".5", "1.0"],
        ["on", "1.01", "-0.1", "2", "Auto", "off\n", "0.5\n", "nan", "1e-1"],
    ),
    "idle_unload_s": (["0", "0.5", "31536000"], ["-1", "31536000.5", "nan", "inf"]),
    "denoise": (["0", "1", "0.5"], ["-0.001", "1.001", "nan", "much"]),
    "device": (
        [
            *("auto", "cpu", "cuda", "cuda:0", "cuda:15", "mps", "cuda:0,cuda:1", "cpu,cpu,cpu"),
            *("cpu:0", "cpu:0-15,cpu:16-31", "cpu:0-1,4-5,cpu:2,3", "cpu:4095"),
        ],
        [
            *("gpu", "CPU", "cuda:", "cuda:-1", "cuda:0 ", "cpu\n", "mps:0", "cuda:0,"),
            *("cuda:0,cuda:0", "cuda:0,cuda:00", "cuda:0,1", "cuda,cuda", "auto,auto", "cpu,cuda"),
            *("cpu:", "cpu:3-2", "cpu:0-3,cpu:3-5", "cpu:4096", "cpu:0,cpu", "cpu:0,"),
            ",".join(["cpu"] * 65),
        ],
    ),
    "gpu_memory_mb": (["0", "1048576"], ["-1", "1048577"]),
    "precision": (["exact", "auto", "fast"], ["float32", "Auto", "fast\n"]),
    "tuning": (["true", "false", "on", "off"], ["2", "maybe"]),
    "cluster": (["ray"] if find_spec("ray") else [], ["Ray", "slurm", "ray\n"]),
    "workers": (["1", "64"], ["0", "65", "-1", "1.5", "two"]),
    "jobs_per_worker": (["0", "1", "64"], ["65", "-1", "1.5", "many"]),
    "threads": (["0", "1024"], ["-1", "1025"]),
    "tile_window_px": (["0", "2048"], ["-1", "2049"]),
    "max_queue": (["0", "100000"], ["-1", "100001"]),
    "job_result_lifetime_s": (["1", "31536000"], ["0", "31536001"]),
    "max_jobs_per_key": (["1", "1000000"], ["0", "1000001"]),
    "work_timeout_s": (["0.001", "86400"], ["0", "-1", "86400.5", "nan", "inf"]),
    "rate_per_s": (["0.001", "1000000"], ["0", "0.0009", "-1", "1000000.5", "nan", "inf"]),
    "rate_burst": (["1", "1000000"], ["0", "1000001"]),
    "metering": (["true", "false", "1", "0", "on", "off", "True"], ["2", "maybe"]),
    "usage_retention_days": (["1", "36500"], ["0", "36501", "1.5"]),
    "audit_retention_days": (["0", "36500"], ["-1", "36501", "1.5"]),
    "admin_keys": (
        [f"a:{'0' * 64}", f"A@b.c:{'f' * 64}, b:{'0' * 64}"],
        ["a", f"a:{'0' * 63}", f"a:{'F' * 64}", f":{'0' * 64}", f"a:{'0' * 64},a:{'1' * 64}"],
    ),
    "admin_host": (["127.0.0.1", "::", "localhost"], []),
    "admin_port": (["0", "65535"], ["-1", "65536"]),
    "max_input_side_x2": (["64", "6000"], ["63", "6001"]),
    "max_input_side_x4": (["64", "6000"], ["63", "6001"]),
    "max_file_bytes": (["1024", str(2**31)], ["1023", str(2**31 + 1)]),
    "jpeg_quality": (["1", "100"], ["0", "101"]),
    "deep_png": (["true", "false"], ["2", "maybe"]),
    "colour_lock": (["true", "false"], ["2", "maybe"]),
    "keep_copyright": (["true", "false"], ["2", "maybe"]),
    "reuse_results": (["true", "false"], ["2", "maybe"]),
    "result_ttl_s": (["1", "31536000"], ["0", "31536001"]),
    "results_url": (
        ["s3://my-bucket", "s3://a.b-c.d/x", "s3://my-bucket/public/result/", "s3://b3d/A_b.c/-"],
        [
            *("my-bucket", "s3:/my-bucket", "S3://my-bucket", "s3://", "s3://ab", "s3://My-Bucket"),
            *("s3://my_bucket", "s3://-bucket", "s3://" + "a" * 64, "https://my-bucket.example/x"),
            *(
                "s3://my-bucket//x",
                "s3://my-bucket/../x",
                "s3://my-bucket/x/.",
                "s3://my-bucket/x y",
            ),
            *(
                "s3://my-bucket?x=1",
                "s3://my-bucket/x#f",
                "s3://my-bucket:443/x",
                "s3://my-bucket\n",
            ),
            *("s3://key@my-bucket", "s3://my-bucket/%2e%2e", "gs://my-bucket", "file:///results"),
        ],
    ),
    "s3_endpoint": (
        ["http://127.0.0.1:9000", "https://minio.example", "https://s3.example/base"],
        ["minio.example:9000", "s3://minio", "https://key@minio.example", "https://a?b"],
    ),
    "body_timeout_s": (["0.001", "3600"], ["0", "3600.5", "nan"]),
    "write_timeout_s": (["0.001", "3600"], ["0", "3600.5", "nan"]),
    "max_connections": (["1", "1000000"], ["0", "1000001", "1.5"]),
    "max_connections_per_address": (["1", "1000000"], ["0", "1000001", "many"]),
    "trusted_proxies": (
        ["none", "None", "10.0.0.0/8", "10.0.0.1, ::1", ","],
        ["10.0.0.1/8", "*", "localhost", "none, 10.0.0.1"],
    ),
    "source_timeout_s": (["0.001", "600"], ["0", "600.5", "nan"]),
    "source_private_cidrs": (
        ["10.0.0.0/8", "10.0.0.1", "fd00::/8, 10.1.0.0/16", ","],
        ["10.0.0.1/8", "10.0.0.0/33", "example.com", "10.0.0.0/8;10.1.0.0/16"],
    ),
    "webhook_cidrs": (["10.0.0.0/8", "fd00::/8, 10.0.0.1"], ["10.0.0.1/8", "example.com"]),
    "extra_formats": (["avif", "AVIF, heic,bmp", "tiff"], ["gif", "avif;bmp"]),
    "source_only_hosts": (
        ["a.example", "a.example,b.example", "10.0.0.5,fd00::1", "a_b.example.", "bücher.example"],
        [
            "https://a.example",
            "a.example:8000",
            "*.a.example",
            "a.example/x",
            "[::1]",
            "10.0.0.0/8",
        ],
    ),
    "shutdown_grace_s": (["0", "3600"], ["-0.1", "3600.5", "nan"]),
    "log_format": (["auto", "json", "text"], ["JSON", "logfmt", "text\n"]),
    "traces": (["true", "0"], ["maybe"]),
    "cors_origins": (
        ["*", "https://app.example.com", "http://localhost:5173, https://a.example/", ","],
        ["app.example.com", "https://a.example/x", "https://u@a.example", "null"],
    ),
    "mcp_service_url": (["http://10.0.0.5:8000", "https://a/base"], ["10.0.0.5", "ftp://a"]),
    "mcp_api_key": (["up_x"], []),
    "log_level": (["debug", "info", "WARNING", "Error"], ["trace", "info\n"]),
}

TAKEN = [(name, value) for name, (values, _) in LIMITS.items() for value in values]
REFUSED = [(name, value) for name, (_, values) in LIMITS.items() for value in values]


def test_every_setting_has_tested_limits() -> None:
    assert set(LIMITS) == set(Settings.model_fields)


@pytest.mark.parametrize(("name", "value"), TAKEN)
def test_a_value_within_its_limits_is_accepted(name: str, value: str) -> None:
    load_settings({PREFIX + name.upper(): value})


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_a_value_beyond_its_limits_is_refused_by_name_and_value(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings({PREFIX + name.upper(): value})
    assert f"{PREFIX}{name.upper()}={value!r}: " in str(refused.value)


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings({"UPSCALED_WORKERS": "0", "UPSCALED_JPEG_QUALITY": "101"})
    assert "UPSCALED_WORKERS='0'" in str(refused.value)
    assert "UPSCALED_JPEG_QUALITY='101'" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("WORKER", "; did you mean UPSCALED_WORKERS?"),
        ("MODEL_4X", "; did you mean UPSCALED_MODEL_X4?"),
        ("RATE_PER_SECOND", "; did you mean UPSCALED_RATE_PER_S?"),
        ("QQQQ", ""),
    ],
)
def test_an_unknown_name_is_refused_with_the_one_that_was_meant(name: str, hint: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings({PREFIX + name: "1"})
    assert str(refused.value) == f"UPSCALED_{name}='1': there is no such setting{hint}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVICE_HOST", "10.0.0.1"),
        ("SERVICE_PORT", "8000"),
        ("SERVICE_PORT_HTTP", "8000"),
        ("PORT", "tcp://10.0.0.1:8000"),
        ("PORT_8000_TCP", "tcp://10.0.0.1:8000"),
        ("PORT_8000_TCP_ADDR", "10.0.0.1"),
    ],
)
def test_a_kubernetes_service_of_our_name_stops_no_start(name: str, value: str) -> None:
    assert load_settings({f"UPSCALED_{name}": value}) == load_settings({})


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("DEVICE", "tpu", "must be auto, cpu, cuda or mps; or"),
        ("PRECISION", "best", "must be exact, auto or fast"),
        ("LOG_LEVEL", "loud", "must be debug, info, warning or error"),
        ("SOURCE_PRIVATE_CIDRS", "10.0.0.1/8", "10.0.0.1/8 has host bits set"),
        ("DATA_DIR", "~no-such-user/x", "there is no such home folder"),
    ],
)
def test_a_refusal_is_in_words_for_people(name: str, value: str, reason: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings({f"UPSCALED_{name}": value})
    assert str(refused.value).startswith(f"UPSCALED_{name}={value!r}: {reason}")


@pytest.mark.parametrize("name", list(LIMITS))
def test_a_value_that_is_not_in_utf_8_is_refused_by_its_name(name: str) -> None:
    """As a shell whose locale is Latin-1 sets it."""
    variable = PREFIX + name.upper()
    with pytest.raises(SettingsError) as refused:
        load_settings({variable: os.fsdecode(b"/geheim-\xe4")})
    assert str(refused.value).startswith(variable)
    assert str(refused.value).endswith(": must be text in UTF-8")
    assert ("geheim" in str(refused.value)) is (name not in SECRETS)


OLD_NAMES = [
    ("ALLOWED_SOURCE_CIDRS", "SOURCE_PRIVATE_CIDRS", "10.0.0.0/8"),
    ("ALLOWED_SOURCE_HOSTS", "SOURCE_ONLY_HOSTS", "a.example"),
]


def test_every_old_name_of_a_setting_is_tested() -> None:
    assert {old.lower(): new.lower() for old, new, _ in OLD_NAMES} == ALIASES


@pytest.mark.parametrize(("old", "new", "value"), OLD_NAMES)
def test_an_old_name_means_the_setting_of_today(old: str, new: str, value: str) -> None:
    settings = load_settings({PREFIX + old: value})
    assert settings == load_settings({PREFIX + new: value})
    assert settings != load_settings({})
    assert load_settings({PREFIX + old: "", PREFIX + new: value}) == settings
    assert load_settings({PREFIX + old: value, PREFIX + new: ""}) == settings


@pytest.mark.parametrize(("old", "new", "value"), OLD_NAMES)
@pytest.mark.parametrize("is_same", [True, False])
def test_a_setting_by_both_its_names_stops_the_start(
    old: str, new: str, value: str, is_same: bool
) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings({PREFIX + old: value, PREFIX + new: value if is_same else "172.16.0.0/12"})
    assert f"{PREFIX}{new}=" in str(refused.value)
    assert f"{PREFIX}{old}={value!r}" in str(refused.value)


@pytest.mark.parametrize("name", ["ALLOWED_SOURCE_CIDRS", "SOURCE_PRIVATE_CIDRS"])
def test_a_wrong_value_is_named_by_the_name_it_was_given_by(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"^UPSCALED_{name}='10\.0\.0\.1/8': "):
        load_settings({PREFIX + name: "10.0.0.1/8"})


@pytest.mark.parametrize(("old", "new", "value"), OLD_NAMES)
def test_an_old_name_is_explained_with_the_setting(old: str, new: str, value: str) -> None:
    meanings = {variable: meaning for variable, *_, meaning in describe_settings(load_settings({}))}
    assert PREFIX + old in meanings[PREFIX + new]


def test_a_chosen_port_is_used() -> None:
    assert load_settings({"UPSCALED_PORT": "8351"}).port == 8351
    assert load_settings({"UPSCALED_PORT": "tcp://10.0.0.1:8351"}).port == 8000


@pytest.mark.parametrize("folder", ["~", "~/upscaled", "~root/upscaled", "/data/a~b"])
def test_a_tilde_at_the_beginning_is_the_home_folder(folder: str) -> None:
    """As an environment file gives it: no shell has expanded it."""
    data_dir = load_settings({"UPSCALED_DATA_DIR": folder}).data_dir
    assert data_dir == Path(folder).expanduser()
    assert data_dir.is_absolute()


def test_a_user_without_a_home_folder_needs_to_name_a_data_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one that a container platform makes up: no variable and no entry of a user says it."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 7)
    described = describe_settings(load_settings({"UPSCALED_DATA_DIR": "/data"}))
    assert described[0][:3] == ("UPSCALED_DATA_DIR", "/data", "~/.local/share/upscaled")
    with pytest.raises(SettingsError, match=r"UPSCALED_DATA_DIR='~/.*no such home folder"):
        load_settings({})


def test_variables_without_the_prefix_are_ignored() -> None:
    load_settings({"WORKERS": "0", "PATH": "/bin", "upscaled_workers": "0"})


@pytest.mark.parametrize(
    "name",
    ["UPSCALE_PORT", "UPSCALEDPORT", "UPPSCALED_PORT", "UPSCALER_PORT", "Upscaled_Port"],
)
def test_a_name_that_is_ignored_but_near_a_settings_is_found(name: str) -> None:
    assert find_near_names({name: "8000", "PATH": "/bin"}) == {name: "UPSCALED_PORT"}
    assert find_near_names({name: ""}) == {}


def test_every_setting_without_its_d_is_found_and_no_other_variable_is() -> None:
    names = {name.upper() for name in (*LIMITS, *ALIASES)}
    found = find_near_names({f"UPSCALE_{name}": "1" for name in names})
    assert found == {f"UPSCALE_{name}": PREFIX + name for name in names}
    others = ("UPSCALE", "UPSCALE_MODEL", "UPSCALED", "PORT", "UPS_PORT", "UPSCALED_PORT")
    assert find_near_names(dict.fromkeys(others, "1")) == {}


@pytest.mark.parametrize("name", list(LIMITS))
def test_an_empty_value_is_the_default(name: str) -> None:
    assert load_settings({PREFIX + name.upper(): ""}) == load_settings({})


def test_the_contracts_defaults() -> None:
    settings = load_settings({})
    assert (settings.max_input_side_px(2), settings.max_input_side_px(4)) == (3000, 1500)
    assert settings.max_file_bytes == 25 * 1024 * 1024
    assert settings.result_ttl_s == 3600
    assert (settings.rate_per_s, settings.rate_burst) == (5, 5)
    assert settings.metering is False
    assert MAX_OUTPUT_SIDE_PX == 6000


def test_values_are_converted_to_their_types() -> None:
    settings = load_settings(
        {
            "UPSCALED_DATA_DIR": "/data",
            "UPSCALED_METERING": "true",
            "UPSCALED_RATE_PER_S": "2.5",
            "UPSCALED_PUBLIC_BASE_URL": "https://a.example/base/",
            "UPSCALED_SOURCE_PRIVATE_CIDRS": "10.0.0.0/8, fd00::/8",
            "UPSCALED_SOURCE_ONLY_HOSTS": " A.example ,b.example,",
        }
    )
    assert settings.data_dir == Path("/data")
    assert settings.results_dir == Path("/data/results")
    assert settings.models_dir == Path("/data/models")
    assert settings.metering is True
    assert settings.rate_per_s == 2.5
    assert settings.public_base_url == "https://a.example/base"
    assert settings.source_private_cidrs == (
        ipaddress.ip_network("10.0.0.0/8"),
        ipaddress.ip_network("fd00::/8"),
    )
    assert settings.source_only_hosts == ("a.example", "b.example")


def test_the_environment_of_the_process_is_read_and_an_override_wins_over_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UPSCALED_WORKERS", "3")
    assert load_settings().workers == 3
    assert load_settings(workers=2).workers == 2


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        load_settings({}).workers = 2  # type: ignore[misc]


def test_the_table_has_a_row_with_a_meaning_for_every_setting() -> None:
    rows = describe_settings(load_settings({"UPSCALED_WORKERS": "3"}))
    assert [row[0] for row in rows] == [PREFIX + name.upper() for name in Settings.model_fields]
    assert all(meaning for *_, meaning in rows)
    assert ("UPSCALED_WORKERS", "3", "1", "worker processes for each device") in rows


def test_the_tables_values_can_be_set_again() -> None:
    chosen = load_settings(
        {
            "UPSCALED_METERING": "true",
            "UPSCALED_SOURCE_PRIVATE_CIDRS": "10.0.0.0/8,fd00::/8",
            "UPSCALED_WORK_TIMEOUT_S": "12.5",
        }
    )
    again = {variable: value for variable, value, *_ in describe_settings(chosen)}
    assert load_settings(again) == chosen


def test_a_cluster_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.distributions", lambda **_: iter(()))
    install = f"{re.escape(sys.executable)} -m pip install --no-deps -r requirements-cluster.lock"
    with pytest.raises(SettingsError, match=f"UPSCALED_CLUSTER='ray': .* needs ray: {install}"):
        load_settings({"UPSCALED_CLUSTER": "ray"})


def test_a_password_in_a_wrong_url_is_not_shown() -> None:
    for name in ("UPSCALED_RESULTS_URL", "UPSCALED_S3_ENDPOINT", "UPSCALED_DATABASE_ULR"):
        with pytest.raises(SettingsError) as refused:
            load_settings({name: "https://key:p4ss/word@host.example"})
        assert f"{name}='https://key:***@host.example'" in str(refused.value)


@pytest.mark.parametrize("name", ["UPSCALED_ADMIN_KEYS", "UPSCALED_MCP_API_KYE"])
@pytest.mark.parametrize("key", ["upa_a1-B2_c3", "upk_0123456789abcdef_a1-B2_c3"])
def test_a_key_in_the_wrong_place_is_not_shown(name: str, key: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings({name: f"alice:{key}"})
    assert f"{name}='alice:{key[:4]}***'" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("UPSCALED_RESULTS_URL", "s3://my-bucket", "a bucket needs obstore"),
        ("UPSCALED_TRACES", "true", "traces need opentelemetry-exporter-otlp-proto-http"),
        ("UPSCALED_EXTRA_FORMATS", "heic", "heic needs pillow-heif"),
    ],
)
def test_a_bucket_traces_and_heic_need_their_packages(
    name: str, value: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_settings({name: value})
    monkeypatch.setattr("importlib.metadata.distributions", lambda **_: iter(()))
    install = f"{re.escape(sys.executable)} -m pip install -r requirements-extras.lock"
    with pytest.raises(SettingsError, match=f"{reason}: {install}"):
        load_settings({name: value})
    assert not load_settings({"UPSCALED_TRACES": "false"}).traces
