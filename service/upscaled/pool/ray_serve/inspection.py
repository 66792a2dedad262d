"""Inspect a running cluster: a task on each node, Serve's status, and the replicas' reports."""

import logging
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import ray
from pydantic import ValidationError
from ray import serve
from ray.exceptions import GetTimeoutError, RayError
from ray.serve.exceptions import RayServeException
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from upscaled.pool.ray_serve import messages
from upscaled.pool.ray_serve.node_properties import (
    ClusterReport,
    ClusterUnreachable,
    NodeProperties,
    NodeReport,
    collect_properties,
)

_HEAD: Final = "node:__internal_head__"
_CONNECTED_WITHIN_S: Final = 3.0
_ANSWERED_WITHIN_S: Final = 30.0
"""A node that has no free process starts one, which takes seconds."""

_SERVE_WITHIN_S: Final = 15.0
_REPORTS_WITHIN_S: Final = 10.0


def inspect_cluster() -> ClusterReport:
    """Connect as a front end does, and report on nodes, deployment and replicas; change nothing.

    Raises:
        ClusterUnreachable: the text says why.
    """
    _connect()
    try:
        nodes = _inspect_nodes([node for node in ray.nodes() if node["Alive"]])
        if trouble := _find_trouble():
            return ClusterReport(nodes, "", has_proxy=False, replicas=(), trouble=trouble)
        status, has_proxy = _read_serve()
        replicas, unreadable = _read_replicas() if status else ((), 0)
        return ClusterReport(nodes, status, has_proxy, replicas, unreadable)
    finally:
        ray.shutdown()


def _connect() -> None:
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    # Without it, Ray tries for long where nothing listens.
    address = os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), _CONNECTED_WITHIN_S).close()
        except OSError as error:
            raise ClusterUnreachable(f"nothing answers at {address}: {error}") from None
    try:
        ray.init(
            "auto", namespace=messages.NAMESPACE, log_to_driver=False, logging_level=logging.ERROR
        )
    except Exception as error:  # noqa: BLE001 (what Ray raises here has no common type)
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ClusterUnreachable(" ".join(lines)[:300] or type(error).__name__) from None


def _inspect_nodes(nodes: Sequence[Mapping[str, Any]]) -> list[NodeReport]:
    task = ray.remote(num_cpus=0, max_retries=0)(collect_properties)
    answers = [
        task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in nodes
    ]
    ray.wait(answers, num_returns=len(answers), timeout=_ANSWERED_WITHIN_S)
    reports = [_report_node(node, answer) for node, answer in zip(nodes, answers, strict=True)]
    return sorted(reports, key=lambda report: (not report.is_head, report.address))


def _report_node(node: Mapping[str, Any], answer: ray.ObjectRef) -> NodeReport:
    properties, trouble = None, ""
    try:
        properties = NodeProperties.model_validate_json(ray.get(answer, timeout=0))
    except GetTimeoutError:
        trouble = f"no answer within {_ANSWERED_WITHIN_S:g} s"
    except (RayError, ValidationError) as error:
        trouble = str(error).strip().splitlines()[-1][:200]
    address = node["NodeManagerAddress"]
    return NodeReport(address, _HEAD in node["Resources"], properties, trouble)


def _find_trouble() -> str:
    """Return why Serve's controller cannot be asked, "" where it can, or where there is none.

    Requests for more wait without a limit.
    """
    try:
        controller = ray.get_actor(messages.CONTROLLER, namespace=messages.NAMESPACE)
    except ValueError:
        return ""
    try:
        ray.get(controller.check_alive.remote(), timeout=_SERVE_WITHIN_S)
    except RayError:
        return f"Ray Serve's controller does not answer within {_SERVE_WITHIN_S:g} s"
    return ""


def _read_serve() -> tuple[str, bool]:
    """Return the deployment's status, "" where there is none, and whether a proxy runs."""
    status = serve.status()
    application = status.applications.get(messages.APPLICATION)
    deployment = application and application.deployments.get(messages.DEPLOYMENT)
    return (str(deployment.status.value) if deployment else ""), bool(status.proxies)


def _read_replicas() -> tuple[list[messages.ReplicaReport], int]:
    answers: Sequence[Any] = ()
    with suppress(RayError, RayServeException, TimeoutError):
        handle = serve.get_deployment_handle(messages.DEPLOYMENT, messages.APPLICATION)
        asked = handle.broadcast("report")
        answers = asked.results(timeout_s=_REPORTS_WITHIN_S, return_exceptions=True)
    reports, unreadable = [], 0
    for answer in answers:
        if isinstance(answer, bytes):
            try:
                reports.append(messages.ReplicaReport.model_validate_json(answer))
            except ValidationError:
                unreadable += 1
    return reports, unreadable
