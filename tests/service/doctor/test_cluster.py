"""Each fault of a cluster is found by name; one without a fault passes."""

from dataclasses import replace
from typing import Any

import pytest

from tests.service.pool.ray_serve.reports import report
from upscaled.doctor.cluster import check_cluster
from upscaled.doctor.finding import Finding, Status, worst_of
from upscaled.pool.ray_serve.node_properties import ClusterReport, NodeProperties, NodeReport
from upscaled.pool.ray_serve.options import NODE_ENVIRONMENT, required_ray

GOOD = NodeProperties(
    ray=f"{required_ray()}.0",
    python="3.11.7",
    upscaled="0.1.0",
    environment={**NODE_ENVIRONMENT, "RAY_gcs_storage": "rocksdb"},
    is_reaped=True,
    adopted_by="tini (1)",
)


def cluster(
    head: NodeProperties | None = GOOD, other: NodeProperties | None = GOOD
) -> ClusterReport:
    nodes = [
        NodeReport("10.0.0.5", is_head=True, properties=head),
        NodeReport(
            "10.0.0.6", is_head=False, properties=other, trouble="" if other else "no module"
        ),
    ]
    return ClusterReport(nodes, "HEALTHY", has_proxy=False, replicas=[report("a"), report("b")])


def with_environment(**changed: str) -> NodeProperties:
    return GOOD.model_copy(update={"environment": {**GOOD.environment, **changed}})


def without(name: str) -> NodeProperties:
    kept = {key: value for key, value in GOOD.environment.items() if key != name}
    return GOOD.model_copy(update={"environment": kept})


def faults_of(examined: ClusterReport) -> list[Finding]:
    findings = [each for each in check_cluster(examined) if each.status is not Status.OK]
    assert all(each.advice for each in findings)
    return findings


def test_a_good_cluster_passes() -> None:
    findings = check_cluster(cluster())
    assert worst_of(findings) is Status.OK
    assert len({finding.check for finding in findings}) == len(findings) == 12


@pytest.mark.parametrize(
    ("check", "status", "examined"),
    [
        ("nodes", Status.FAILURE, cluster(other=None)),
        ("Ray", Status.FAILURE, cluster(other=GOOD.model_copy(update={"ray": "2.60.1"}))),
        ("Python", Status.FAILURE, cluster(other=GOOD.model_copy(update={"python": "3.11.8"}))),
        ("upscaled", Status.FAILURE, cluster(other=GOOD.model_copy(update={"upscaled": "0.2.0"}))),
        ("token", Status.FAILURE, cluster(other=without("RAY_AUTH_MODE"))),
        ("token", Status.FAILURE, cluster(other=with_environment(RAY_AUTH_MODE="disabled"))),
        (
            "head away",
            Status.FAILURE,
            cluster(other=without("RAY_gcs_rpc_server_reconnect_timeout_s")),
        ),
        ("lost node", Status.WARNING, cluster(without("RAY_health_check_timeout_ms"))),
        ("head's store", Status.WARNING, cluster(without("RAY_gcs_storage"))),
        ("zombies", Status.FAILURE, cluster(other=GOOD.model_copy(update={"is_reaped": False}))),
        ("zombies", Status.WARNING, cluster(other=GOOD.model_copy(update={"is_reaped": None}))),
        ("usage", Status.WARNING, cluster(other=without("RAY_USAGE_STATS_ENABLED"))),
    ],
)
def test_what_is_wrong_on_a_node_is_found_and_the_node_named(
    check: str, status: Status, examined: ClusterReport
) -> None:
    (finding,) = faults_of(examined)
    assert (finding.check, finding.status) == (check, status)
    if check not in ("lost node", "head's store", "zombies"):
        assert "10.0.0.6" in finding.found


def test_of_a_cluster_whose_nodes_are_silent_nothing_is_called_right() -> None:
    findings = check_cluster(cluster(None, None))
    assert [finding.check for finding in findings if finding.status is not Status.OK] == [
        "nodes"
    ] * 2
    assert "Ray" not in {finding.check for finding in findings}


def test_a_ray_that_is_alike_but_not_the_required_one_is_found() -> None:
    old = GOOD.model_copy(update={"ray": "2.9.3"})
    (finding,) = faults_of(cluster(old, old))
    assert finding.check == "Ray"
    assert f"{required_ray()}.* is what works" in finding.found


def test_settings_of_the_head_are_read_from_the_head_alone() -> None:
    bare = without("RAY_health_check_period_ms")
    assert faults_of(cluster(other=bare)) == []
    in_redis = without("RAY_gcs_storage").environment | {"RAY_REDIS_ADDRESS": "redis:6379"}
    assert faults_of(cluster(GOOD.model_copy(update={"environment": in_redis}))) == []


@pytest.mark.parametrize(("reconnect_s", "faults"), [("599", 1), ("600", 0)])
def test_nodes_must_wait_ten_minutes_for_the_head(reconnect_s: str, faults: int) -> None:
    node = with_environment(RAY_gcs_rpc_server_reconnect_timeout_s=reconnect_s)
    assert len(faults_of(cluster(other=node))) == faults


@pytest.mark.parametrize(
    ("check", "status", "changed"),
    [
        ("deployment", Status.FAILURE, {"status": "", "replicas": []}),
        ("deployment", Status.WARNING, {"status": "UPDATING"}),
        ("deployment", Status.FAILURE, {"status": "", "trouble": "no answer", "replicas": []}),
        ("proxy", Status.FAILURE, {"has_proxy": True}),
        ("replicas", Status.FAILURE, {"replicas": []}),
        ("replicas", Status.FAILURE, {"unreadable": 1}),
        ("replicas", Status.FAILURE, {"replicas": [report("a"), report("b", sha256="b" * 64)]}),
        ("replicas", Status.FAILURE, {"replicas": [report("a"), report("b", plan="other ffff")]}),
        ("replicas", Status.WARNING, {"replicas": [report("a"), report("b", accepts=False)]}),
    ],
)
def test_what_is_wrong_with_the_deployment_is_found(
    check: str, status: Status, changed: dict[str, Any]
) -> None:
    (finding,) = faults_of(replace(cluster(), **changed))
    assert (finding.check, finding.status) == (check, status)


@pytest.mark.parametrize(
    ("examined", "found", "advice"),
    [
        (cluster(other=without("RAY_AUTH_MODE")), "not set on 10.0.0.6", "RAY_AUTH_MODE=token"),
        (
            cluster(*[with_environment(RAY_AUTH_MODE="disabled")] * 2),
            "RAY_AUTH_MODE is disabled on 10.0.0.5, 10.0.0.6",
            "RAY_AUTH_TOKEN",
        ),
        (
            cluster(other=with_environment(RAY_gcs_rpc_server_reconnect_timeout_s="70")),
            "is 70 on 10.0.0.6 (default 60), less than 600 s",
            "set RAY_gcs_rpc_server_reconnect_timeout_s=3600",
        ),
        (
            cluster(without("RAY_health_check_timeout_ms")),
            "within some 55 s, not 15 s: the head checks every 1000 ms, and waits 10000 ms",
            "RAY_health_check_timeout_ms=2000",
        ),
        (
            cluster(other=with_environment(RAY_USAGE_STATS_ENABLED="1")),
            "RAY_USAGE_STATS_ENABLED is 1 on 10.0.0.6",
            "RAY_USAGE_STATS_ENABLED=0",
        ),
        (replace(cluster(), status="UPDATING"), "UPDATING, not HEALTHY", "`serve status`"),
        (replace(cluster(), unreadable=1), "1 of 3 are of another version", "upgrade all nodes"),
    ],
)
def test_a_finding_names_what_is_found_what_is_wanted_and_the_cure(
    examined: ClusterReport, found: str, advice: str
) -> None:
    (finding,) = faults_of(examined)
    assert found in finding.found
    assert advice in finding.advice


def test_the_check_reports_whether_replicas_store_results_themselves() -> None:
    storing = report("a").model_copy(update={"results_url": "s3://b"})
    troubled = storing.model_copy(update={"results_trouble": "no credentials"})
    elsewhere = storing.model_copy(update={"results_endpoint": "http://other:9000"})
    for replicas, status, said in (
        ([storing], Status.OK, "themselves"),
        ([storing, troubled], Status.WARNING, "1 of 2 replicas return them"),
        ([storing, troubled], Status.WARNING, "no credentials"),
        ([storing, report("b")], Status.WARNING, "none (1), s3://b (1)"),
        ([storing, elsewhere], Status.WARNING, "Amazon's (1), http://other:9000 (1)"),
    ):
        findings = check_cluster(replace(cluster(), replicas=replicas))
        [found] = [each for each in findings if each.check == "results"]
        assert (found.status, said in found.found) == (status, True)
