"""The workflows for n8n: of the shape that n8n imports, and their requests upscale."""

import json
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.docs.blocks import DOCS, read_blocks
from tests.service.api.executors import IdleExecutor
from tests.service.api.pictures import picture, size_of
from tests.service.api.receiver import receive
from tests.service.api.serving import Service, serve
from tests.service.api.waiting import wait_until

FILE, JOB = (json.loads(block.text) for block in read_blocks(DOCS / "n8n.md", "json"))
WORKFLOWS = pytest.mark.parametrize("workflow", [FILE, JOB], ids=lambda each: each["name"])
RESUME_URL = "={{ $execution.resumeUrl }}"
RESULT_URL = "={{ $json.body.data.result_url }}"

Json = dict[str, Any]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    loopback = "127.0.0.0/8"
    with serve(
        tmp_path / "data",
        IdleExecutor(),
        source_private_cidrs=loopback,
        webhook_cidrs=loopback,
    ) as running:
        running.state.webhooks.configure("test", None)  # makes the secret
        yield running


def node_of(workflow: Json, name: str) -> Json:
    (node,) = (node for node in workflow["nodes"] if node["name"] == name)
    found: Json = node
    return found


def send(
    node: Json, service: Service, *, data: bytes = b"", values: Mapping[str, str] | None = None
) -> requests.Response:
    """Send the request that an HTTP Request node describes, as n8n does.

    Args:
        node: the node.
        service: its address and key stand in place of the page's and of the credential.
        data: the binary field `data` of the node's input.
        values: what each expression gives.
    """

    def resolve(text: str) -> str:
        if text.startswith("="):
            return (values or {})[text]
        text = text.replace("https://example.com/photo.jpg", f"{service.url}/assets/sample.jpg")
        return text.replace("http://127.0.0.1:8000", service.url)

    given = node["parameters"]
    listed = given.get("headerParameters", {}).get("parameters", [])
    assert given.get("sendHeaders", False) == bool(listed)
    headers = {each["name"]: resolve(each["value"]) for each in listed}
    if given.get("authentication") == "genericCredentialType":
        assert given["genericAuthType"] == "httpHeaderAuth"
        headers |= service.headers
    body: Json = {}
    if given.get("sendBody") and given["contentType"] == "multipart-form-data":
        files, fields = {}, {}
        for field in given["bodyParameters"]["parameters"]:
            if field["parameterType"] == "formBinaryData":
                assert field["inputDataFieldName"] == "data"
                files[field["name"]] = ("photo.png", data)
            else:
                fields[field["name"]] = resolve(field["value"])
        body = {"files": files, "data": fields}
    elif given.get("sendBody"):
        assert (given["contentType"], given["specifyBody"]) == ("json", "json")
        body = {"json": json.loads(resolve(given["jsonBody"]))}
    url = resolve(given["url"])
    return requests.request(given["method"], url, headers=headers, timeout=30, **body)


@WORKFLOWS
def test_a_workflow_has_what_n8n_imports(workflow: Json) -> None:
    assert set(workflow) == {"name", "nodes", "connections", "settings", "pinData"}
    names = [node["name"] for node in workflow["nodes"]]
    assert len(set(names)) == len(names)
    assert len({node["id"] for node in workflow["nodes"]}) == len(names)
    for node in workflow["nodes"]:
        assert {"id", "name", "type", "typeVersion", "position", "parameters"} <= set(node)
        assert re.fullmatch(r"n8n-nodes-base\.\w+", node["type"])
        assert len(node["position"]) == 2


@WORKFLOWS
def test_its_nodes_are_one_chain_in_the_order_of_the_file(workflow: Json) -> None:
    names = [node["name"] for node in workflow["nodes"]]
    assert workflow["connections"] == {
        name: {"main": [[{"node": after, "type": "main", "index": 0}]]}
        for name, after in pairwise(names)
    }


@WORKFLOWS
def test_it_holds_no_key(workflow: Json) -> None:
    assert "X-API-KEY" not in json.dumps(workflow)
    assert all("credentials" not in node for node in workflow["nodes"])


def test_the_request_of_a_file_is_answered_with_the_picture(service: Service) -> None:
    node = node_of(FILE, "Upscale")
    assert node["parameters"]["options"]["response"]["response"]["responseFormat"] == "file"
    answer = send(node, service, data=picture())
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert size_of(answer.content) == (320, 256)


def test_the_job_of_a_url_calls_the_waiting_node_and_its_result_is_fetched(
    service: Service,
) -> None:
    with receive() as waiting:
        answer = send(node_of(JOB, "Start a job"), service, values={RESUME_URL: waiting.url})
        assert answer.status_code == 202
        wait_until(lambda: bool(waiting.calls), 30)
    event = json.loads(waiting.calls[0].body)
    assert (event["type"], event["data"]["id"]) == ("job.succeeded", answer.json()["id"])
    wait = node_of(JOB, "Wait for its end")["parameters"]
    assert (wait["resume"], wait["httpMethod"]) == ("webhook", "POST")
    values = {RESULT_URL: event["data"]["result_url"]}  # n8n gives a call's body as `$json.body`
    result = send(node_of(JOB, "Fetch the result"), service, values=values)
    assert size_of(result.content) == (1280, 960)
