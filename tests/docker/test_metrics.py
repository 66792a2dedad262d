"""The dashboard, the alerts and the scrape are of what the server really exports.

Prometheus itself is Debian's. Grafana is not in Debian: its files are held to what it documents of
them (docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model).
"""

import json
import math
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import pytest
import requests
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.docker.prometheus import Prometheus, run_prometheus
from tests.docs.blocks import DOCS
from tests.running import Server, serve
from tests.service.api.serving import serve as serve_here
from tests.service.api.waiting import wait_until
from tests.service.observed_server import encode_gradient

DOCKER_DIR: Final = Path(__file__).resolve().parents[2] / "docker"
PROMETHEUS_DIR: Final = DOCKER_DIR / "prometheus"
DASHBOARD: Final = json.loads((DOCKER_DIR / "grafana/dashboards/upscaled.json").read_text())
PANELS: Final = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS: Final = {
    f"{panel['id']} {panel['title']}, {target['refId']}": target["expr"]
    for panel in PANELS
    for target in panel["targets"]
}
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="needs Debian's package prometheus"
)


def promtool(*arguments: object, text: str = "") -> str:
    done = subprocess.run(
        ["promtool", *map(str, arguments)], input=text, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def exposition(tmp_path_factory: pytest.TempPathFactory) -> str:
    with serve_here(tmp_path_factory.mktemp("exported")) as service:
        return service.get("/metrics").text


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:upscaled|process)_\w+", expression))


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((PROMETHEUS_DIR / "alerts.yaml").read_text())["groups"]
    return list(group["rules"])


def test_expressions_name_only_what_is_exported(exposition: str) -> None:
    exported = {
        sample.name
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    }
    expressions = [*EXPRESSIONS.values(), *(alert["expr"] for alert in alerts())]
    names = set().union(*map(names_in, expressions))
    assert names - exported == set()
    assert len(names) > 30


def test_nearly_everything_exported_is_on_the_dashboard(exposition: str) -> None:
    """Metrics that no panel shows are named here."""
    counted = {
        re.sub(r"_(bucket|count|sum)$", "", sample.name)
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.name.startswith("upscaled_") and not sample.name.endswith("_created")
    }
    shown = {
        re.sub(r"_(bucket|count|sum)$", "", name)
        for expression in EXPRESSIONS.values()
        for name in names_in(expression)
    }
    assert counted - shown == set()


def metrics_table(exposition: str) -> str:
    """Write the page's table of metrics from the descriptions that the server exports."""
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for family in text_string_to_metric_families(exposition):
        if not family.name.startswith("upscaled_") or family.name.endswith("_created"):
            continue
        name = family.name + "_total" * (family.type == "counter")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        names = ", ".join(f"`{label}`" for label in sorted(labels))
        lines.append(f"| `{name}` | {family.type} | {names} | {family.documentation} |")
    return "\n".join(lines)


def test_every_metric_is_documented(exposition: str) -> None:
    page = (DOCS / "metrics.md").read_text()
    found = re.search(r"<!-- metrics:.*?-->\n(.*?)\n<!-- /metrics -->", page, re.DOTALL)
    assert found is not None
    table = metrics_table(exposition)
    assert found[1] == table, f"put this into metrics.md:\n{table}"


def test_every_alert_and_every_event_of_the_log_is_documented() -> None:
    page = (DOCS / "metrics.md").read_text()
    assert [alert["alert"] for alert in alerts() if f"`{alert['alert']}`" not in page] == []
    sources = [path.read_text() for path in (DOCKER_DIR.parent / "service").rglob("*.py")]
    events = {name for text in sources for name in re.findall(r'\bevent\(\s*"(\w+)"', text)}
    assert "worker_died" in events
    assert [name for name in sorted(events) if f"`{name}`" not in page] == []


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    cells = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(cells)
    for cell in cells:
        assert 0 <= cell["x"] < cell["x"] + cell["w"] <= 24
    for one, other in combinations(cells, 2):
        are_apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert are_apart


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_has_a_title_a_unit_and_queries(panel: dict[str, Any]) -> None:
    assert panel["type"] in {"timeseries", "stat", "table"}
    assert panel["title"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["fieldConfig"]["overrides"] == []
    assert panel["options"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
    for part in (panel, *panel["targets"]):
        assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for target in panel["targets"]:
        assert set(re.findall(r"\$\w+", target["expr"])) <= {"$instance", "$__rate_interval"}
        assert 'instance=~"$instance"' in target["expr"]
        assert target["instant"] is not target["range"]


def test_the_dashboard_is_in_the_folder_that_grafana_reads() -> None:
    grafana = yaml.safe_load((DOCKER_DIR / "compose.yaml").read_text())["services"]["grafana"]
    mounts = dict(mount.split(":")[:2] for mount in grafana["volumes"])
    provisioning = DOCKER_DIR / "grafana/provisioning"
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
    (provider,) = yaml.safe_load((provisioning / "dashboards/upscaled.yaml").read_text())[
        "providers"
    ]
    assert provider["options"]["path"] == mounts["./grafana/dashboards"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == mounts["./grafana/dashboards"] + "/upscaled.json"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["query"] == source["type"]
    assert variables["instance"]["datasource"]["uid"] == "${datasource}"


@needs_prometheus
def test_promtool_accepts_the_configuration_and_the_rules() -> None:
    said = promtool("check", "config", PROMETHEUS_DIR / "prometheus.yaml")
    assert f"{len(alerts())} rules found" in said


@needs_prometheus
def test_each_alert_fires_when_it_should_and_only_then() -> None:
    cases = Path(__file__).with_name("alerts.test.yaml")
    assert "SUCCESS" in promtool("test", "rules", cases)
    text = cases.read_text()
    assert [alert["alert"] for alert in alerts() if alert["alert"] not in text] == []


@needs_prometheus
def test_the_exported_metrics_pass_promtool(exposition: str) -> None:
    ours = [line for line in exposition.splitlines() if "_created" not in line]
    assert promtool("check", "metrics", text="\n".join(ours) + "\n") == ""


@dataclass(frozen=True)
class Watched:
    server: Server
    prometheus: Prometheus


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Run a server under requests, and a Prometheus that scrapes it meanwhile."""
    folder = tmp_path_factory.mktemp("watched")
    settings: dict[str, Any] = {"UPSCALED_METERING": "true", "UPSCALED_RATE_BURST": "100"}
    with serve(folder / "data", **settings) as server:
        server.run("credits", "add", "first", "100")
        address = server.url.removeprefix("http://")
        with run_prometheus(folder, PROMETHEUS_DIR, address) as prometheus:
            for _ in range(3):
                work(server)
                time.sleep(1.5)
            yield Watched(server, prometheus)


def work(server: Server) -> None:
    """Send one image as URL, one as bytes and one that is refused."""

    def send(image: bytes, **headers: str) -> int:
        answer = requests.post(
            f"{server.url}/v1/upscale",
            headers={"X-API-KEY": server.key, **headers},
            files={"image": image},
            data={"scale": "2"},
            timeout=60,
        )
        return answer.status_code

    assert send(encode_gradient(80)) == 200
    assert send(encode_gradient(80), Accept="image/*") == 200
    assert send(b"garbage") == 400


@pytest.mark.slow
@needs_prometheus
@pytest.mark.parametrize("place", EXPRESSIONS)
def test_every_expression_shows_something_of_a_server_at_work(watched: Watched, place: str) -> None:
    expression = EXPRESSIONS[place].replace("$instance", ".*").replace("$__rate_interval", "60s")
    values = watched.prometheus.query(expression)
    assert [value for value in values if not math.isnan(value)]


@pytest.mark.slow
@needs_prometheus
def test_prometheus_scrapes_without_an_error_and_no_alert_fires(watched: Watched) -> None:
    (target,) = watched.prometheus.get("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    (group,) = watched.prometheus.get("rules")["groups"]
    assert len(group["rules"]) == len(alerts())
    assert {rule["health"] for rule in group["rules"]} == {"ok"}
    assert watched.prometheus.get("alerts")["alerts"] == []


@pytest.mark.slow
@needs_prometheus
def test_prometheus_counts_the_requests_that_were_sent(watched: Watched) -> None:
    wanted: dict[str, Callable[[float], bool]] = {
        'upscaled_requests_total{route="/v1/upscale", status="200"}': lambda n: n >= 6,
        'upscaled_credits_total{event="captured"}': lambda n: n >= 6,
        'upscaled_credits_total{event="released"}': lambda n: n >= 3,
        "upscaled_results_stored_total": lambda n: n >= 3,
        'sum(upscaled_trunk_pixels_total{model=~"upscaled-x2.*"})': lambda n: n >= 6 * 80 * 64,
        'upscaled_stage_seconds_count{stage="store"}': lambda n: n >= 3,
    }
    for expression, is_right in wanted.items():
        wait_counted(watched.prometheus, expression, is_right)


def wait_counted(
    prometheus: Prometheus, expression: str, is_right: Callable[[float], bool]
) -> None:
    """Wait until Prometheus, which reads metrics every few seconds, has one value that is right."""
    wait_until(lambda: [is_right(value) for value in prometheus.query(expression)] == [True])
