"""Check a cluster: versions, Ray's dangerous defaults, the head's store, and the replicas."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from upscaled.doctor.finding import Finding, failure, ok, warning
from upscaled.pool.ray_serve import options
from upscaled.pool.ray_serve.messages import APPLICATION
from upscaled.pool.ray_serve.node_properties import (
    GCS_STORAGE,
    REDIS_ADDRESS,
    ClusterReport,
    NodeProperties,
    NodeReport,
)
from upscaled.pool.ray_serve.reports import find_difference

_LEAST_RECONNECT_S: Final = 600
"""A head that moves to another machine is there again within ten minutes, or needs a hand."""

_DEFAULT_RECONNECT_S: Final = 60
_SLOWEST_NOTICE_MS: Final = 15_000
_CHECKS_FAILED: Final = 5  # as many in a row, and a node counts as lost
_DEFAULT_PERIOD_MS: Final = 3000
_DEFAULT_TIMEOUT_MS: Final = 10_000
_INSTALL: Final = (
    "install the same on all: pip install --no-deps --require-hashes -r requirements-cluster.lock"
)

Seen = Mapping[str, NodeProperties]
"""Properties of the nodes that answered, by address."""


def check_cluster(report: ClusterReport) -> list[Finding]:
    """Return what is found, in the order of the report; `upscaled cluster check` prints it."""
    seen = {node.address: node.properties for node in report.nodes if node.properties}
    head = {
        node.address: node.properties for node in report.nodes if node.properties and node.is_head
    }
    return [
        *_check_nodes(report.nodes),
        *(_check_properties(seen, head) if seen else []),
        *_check_serve(report),
        *_check_replicas(report),
        *_check_results(report),
    ]


def _check_properties(seen: Seen, head: Seen) -> list[Finding]:
    return [
        _check_ray(seen),
        _check_alike(
            "Python",
            {name: properties.python for name, properties in seen.items()},
            "install the same on all",
        ),
        _check_alike(
            "upscaled",
            {name: properties.upscaled for name, properties in seen.items()},
            "upgrade them all",
        ),
        _check_token(seen),
        _check_reconnect(seen),
        *_check_health(head),
        *_check_store(head),
        _check_reaping(seen),
        _check_usage(seen),
    ]


def _check_nodes(nodes: Sequence[NodeReport]) -> list[Finding]:
    silent = [node for node in nodes if not node.properties]
    answering = f"{len(nodes) - len(silent)} of {len(nodes)} answer"
    if not silent:
        return [ok("nodes", answering)]
    advice = "see whether this version of upscaled is installed there, and the logs under /tmp/ray"
    return [
        failure("nodes", f"{node.address}: {node.trouble} ({answering})", advice) for node in silent
    ]


def _check_ray(seen: Seen) -> Finding:
    series = options.required_ray()
    by_node = {name: properties.ray for name, properties in seen.items()}
    if not all(version.startswith(f"{series}.") for version in by_node.values()):
        found = f"{_describe(by_node)}; {series}.* is what works"
        return failure("Ray", found, _INSTALL)
    return _check_alike("Ray", by_node, _INSTALL)


def _check_alike(check: str, by_node: Mapping[str, str], advice: str) -> Finding:
    versions = set(by_node.values())
    if len(versions) > 1 or "" in versions:
        return failure(check, _describe(by_node), advice)
    return ok(check, f"{next(iter(versions), 'unknown')} on all")


def _check_token(seen: Seen) -> Finding:
    name = "RAY_AUTH_MODE"
    if bare := {
        node: properties for node, properties in seen.items() if _read(properties, name) != "token"
    }:
        found = f"{_describe_variable(bare, name)}: whatever reaches the ports can run code there"
        return failure("token", found, f"{_advise(name)}, and RAY_AUTH_TOKEN, the same on all")
    return ok("token", "required on all nodes")


def _check_reconnect(seen: Seen) -> Finding:
    short = {
        name: properties
        for name, properties in seen.items()
        if _read_number(properties, options.RECONNECT_TIMEOUT, _DEFAULT_RECONNECT_S)
        < _LEAST_RECONNECT_S
    }
    if short:
        found = _describe_variable(short, options.RECONNECT_TIMEOUT)
        found += f" (default {_DEFAULT_RECONNECT_S}), less than {_LEAST_RECONNECT_S} s: "
        found += "the node ends, with its replicas, when the head is away for longer"
        return failure("head away", found, _advise(options.RECONNECT_TIMEOUT))
    return ok("head away", f"nodes wait at least {_LEAST_RECONNECT_S} s for it")


def _check_health(head: Seen) -> list[Finding]:
    findings = []
    for properties in head.values():
        period_ms = _read_number(properties, options.HEALTH_CHECK_PERIOD, _DEFAULT_PERIOD_MS)
        timeout_ms = _read_number(properties, options.HEALTH_CHECK_TIMEOUT, _DEFAULT_TIMEOUT_MS)
        notice_ms = _CHECKS_FAILED * (period_ms + timeout_ms)
        found = f"noticed within some {notice_ms / 1000:.0f} s"
        if notice_ms <= _SLOWEST_NOTICE_MS:
            findings.append(ok("lost node", found))
            continue
        found += f", not {_SLOWEST_NOTICE_MS / 1000:.0f} s: the head checks every {period_ms} ms, "
        found += f"and waits {timeout_ms} ms for an answer"
        advice = f"{_advise(options.HEALTH_CHECK_PERIOD, options.HEALTH_CHECK_TIMEOUT)} of the head"
        findings.append(warning("lost node", found, advice))
    return findings


def _check_store(head: Seen) -> list[Finding]:
    findings = []
    for properties in head.values():
        if properties.environment.get(GCS_STORAGE) == "rocksdb":
            findings.append(ok("head's store", "RocksDB, on the head's disk"))
        elif REDIS_ADDRESS in properties.environment:
            findings.append(ok("head's store", "Redis"))
        else:
            found = "in memory: if the head ends, all nodes and replicas start anew"
            advice = f"{GCS_STORAGE}=rocksdb and {GCS_STORAGE}_path on a disk, before ray start"
            findings.append(warning("head's store", found, advice))
    return findings


def _check_reaping(seen: Seen) -> Finding:
    left = {
        name: properties.adopted_by
        for name, properties in seen.items()
        if properties.is_reaped is False
    }
    if left:
        found = f"{_describe(left)} does not reap dead processes: "
        found += "replicas would outlive a dead raylet, and keep their GPU"
        advice = "an init that does: `init: true`, tini, or shareProcessNamespace: true"
        return failure("zombies", found, advice)
    unknown = [name for name, properties in seen.items() if properties.is_reaped is None]
    if unknown:
        found = f"{', '.join(unknown)}: only Linux shows whether they are reaped"
        return warning("zombies", found, "see that the first process there reaps others")
    return ok("zombies", "reaped on all")


def _check_usage(seen: Seen) -> Finding:
    name = "RAY_USAGE_STATS_ENABLED"
    if calling := {
        node: properties for node, properties in seen.items() if _read(properties, name) != "0"
    }:
        found = f"{_describe_variable(calling, name)}: Ray sends statistics to its makers"
        return warning("usage", found, _advise(name))
    return ok("usage", "Ray sends no statistics to its makers")


def _check_serve(report: ClusterReport) -> list[Finding]:
    if report.trouble:
        advice = "`ray status`, and the controller's logs under /tmp/ray/session_latest/logs/serve"
        return [failure("deployment", report.trouble, advice)]
    if not report.status:
        advice = "serve run --non-blocking FILE, which `upscaled cluster manifest` writes"
        return [failure("deployment", f"Ray Serve has no application {APPLICATION}", advice)]
    findings = [ok("deployment", report.status)]
    if report.status != "HEALTHY":
        advice = "`serve status` says why; UPDATING for long: no node has the CPUs or GPUs free"
        findings = [warning("deployment", f"{report.status}, not HEALTHY", advice)]
    if report.has_proxy:
        found = "Serve's own HTTP proxy runs, which checks no API keys"
        advice = "serve shutdown, then deploy with proxy_location: Disabled"
        findings.append(failure("proxy", found, advice))
    return findings


def _check_replicas(report: ClusterReport) -> list[Finding]:
    if not report.status:
        return []
    if report.unreadable:
        asked = len(report.replicas) + report.unreadable
        found = f"{report.unreadable} of {asked} are of another version of upscaled than this one"
        return [failure("replicas", found, "upgrade all nodes, then deploy anew")]
    if not report.replicas:
        return [failure("replicas", "none answers", "`serve status`, and the logs of the nodes")]
    if difference := find_difference(report.replicas):
        advice = "the same model files and settings of `auto` (UPSCALED_MODEL_X4 ...) on all nodes"
        return [failure("replicas", difference, advice)]
    taking = sum(replica.accepts for replica in report.replicas)
    found = f"{taking} of {len(report.replicas)} take images, with the same models"
    if taking < len(report.replicas):
        return [warning("replicas", found, "wait until the others have started; see their logs")]
    return [ok("replicas", found)]


def _check_results(report: ClusterReport) -> list[Finding]:
    """Check whether replicas store results themselves; no finding if none names a bucket."""
    urls = Counter(replica.results_url for replica in report.replicas)
    if not any(urls):
        return []
    if len(urls) > 1:
        advice = "the same UPSCALED_RESULTS_URL on all nodes and front ends, before ray start"
        found = f"replicas name different buckets: {_describe_counts(urls, 'none')}"
        return [warning("results", found, advice)]
    endpoints = Counter(replica.results_endpoint for replica in report.replicas)
    if len(endpoints) > 1:
        advice = "the same UPSCALED_S3_ENDPOINT on all nodes and front ends, before ray start"
        found = "replicas reach the bucket at different endpoints: "
        found += _describe_counts(endpoints, "Amazon's")
        return [warning("results", found, advice)]
    troubles = [each.results_trouble for each in report.replicas if each.results_trouble]
    if troubles:
        found = f"{len(troubles)} of {len(report.replicas)} replicas return them to the front ends"
        advice = "the bucket's credentials (AWS_ACCESS_KEY_ID ...) in each node's environment"
        return [warning("results", f"{found}: {'; '.join(sorted({*troubles}))}", advice)]
    return [ok("results", "replicas store them in the bucket themselves")]


def _describe(by_node: Mapping[str, str]) -> str:
    nodes = defaultdict(list)
    for name, value in by_node.items():
        nodes[value or "none"].append(name)
    return "; ".join(f"{value} on {', '.join(names)}" for value, names in nodes.items())


def _describe_variable(seen: Seen, name: str) -> str:
    values = _describe(
        {node: properties.environment.get(name, "not set") for node, properties in seen.items()}
    )
    return f"{name} is {values}"


def _describe_counts(counted: Mapping[str, int], empty: str) -> str:
    return ", ".join(f"{value or empty} ({count})" for value, count in sorted(counted.items()))


def _read(properties: NodeProperties, name: str) -> str:
    return properties.environment.get(name, "")


def _read_number(properties: NodeProperties, name: str, default: int) -> int:
    value = _read(properties, name)
    return int(value) if value.isdecimal() else default


def _advise(*names: str) -> str:
    pairs = " ".join(f"{name}={options.NODE_ENVIRONMENT[name]}" for name in names)
    return f"set {pairs} before ray start"
