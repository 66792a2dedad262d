"""The pages work with the network unplugged: everything they load is served from here."""

import re
import shutil
import subprocess
from importlib.resources import files

import pytest

from tests.service.api.serving import Service

PAGES = {"/": "playground.html", "/docs": "docs.html"}


@pytest.mark.parametrize("path", PAGES)
def test_a_page_loads_nothing_from_outside(service: Service, path: str) -> None:
    page = service.get(path)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    loaded = re.findall(r'(?:src|<link[^>]+href)="([^"]+)"', page.text)
    assert loaded
    for name in loaded:
        asset = service.get(f"/{name}")
        assert asset.status_code == 200, name
        assert asset.headers["X-Content-Type-Options"] == "nosniff"
        assert not re.search(r"(?:https?:)?//[a-z]+\.", asset.text.replace("// ", "")), name
    assert "://" not in page.text


@pytest.mark.parametrize("path", PAGES)
def test_the_policy_forbids_the_rest(service: Service, path: str) -> None:
    policy = service.get(path).headers["Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert "unsafe" not in policy
    assert "http" not in policy


@pytest.mark.parametrize("path", PAGES)
def test_nothing_in_a_page_needs_what_the_policy_forbids(service: Service, path: str) -> None:
    page = service.get(path).text
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son[a-z]+=", page)


@pytest.mark.parametrize("path", PAGES)
def test_a_script_finds_every_element_it_asks_for(service: Service, path: str) -> None:
    page = service.get(path).text
    (script,) = re.findall(r'<script src="([^"]+)"', page)
    asked = re.findall(r'(?:element|getElementById)\("([\w-]+)"\)', service.get(f"/{script}").text)
    assert asked
    assert set(asked) <= set(re.findall(r'id="([\w-]+)"', page))


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("name", ["playground.js", "docs.js"])
def test_the_scripts_are_sound(name: str) -> None:
    script = (files("service.api") / "assets" / name).read_bytes()
    command = ["node", "--input-type=module", "--check"]
    done = subprocess.run(command, input=script, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
