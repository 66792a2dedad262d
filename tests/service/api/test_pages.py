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


def test_no_style_shows_what_is_hidden() -> None:
    """A class that sets `display` wins over the browser's own rule for `hidden`."""
    style = (files("service.api") / "assets" / "style.css").read_text()
    assert "[hidden] { display: none !important; }" in style


# As much of a browser as the scripts need, for node.
BROWSER = """
class Element {
  constructor(name) { Object.assign(this, { name, children: [], listeners: {}, hidden: true }); }
  append(...children) { this.children.push(...children); }
  addEventListener(name, listener) { this.listeners[name] = listener; }
  classList = { toggle() {} };
  set textContent(text) { this.children = [text]; }
  get textContent() { return this.children.map((each) => each.textContent ?? each).join(" "); }
  async decode() { this.naturalWidth = 160; this.naturalHeight = 128; }
}
const elements = {};
globalThis.document = {
  createElement: (name) => new Element(name),
  getElementById: (id) => (elements[id] ??= new Element(id)),
};
globalThis.location = { href: "http://upscale.example:8000/docs" };
const at = document.getElementById;
"""


def run_in_browser(script: str, *, before: str, after: str) -> str:
    source = (files("service.api") / "assets" / script).read_text()
    command = ["node", "--input-type=module"]
    whole = "\n".join([BROWSER, before, source, after])
    done = subprocess.run(command, input=whole, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


@needs_node
def test_the_documentation_shows_every_operation_and_error(service: Service) -> None:
    document = service.get("/openapi.json").text
    shown = run_in_browser(
        "docs.js",
        before=f"globalThis.fetch = async () => ({{ json: async () => ({document}) }});",
        after="console.log(Object.values(elements).map((each) => each.textContent).join('\\n'));",
    )
    assert "curl http://upscale.example:8000/v1/upscale" in shown
    for path in service.get("/openapi.json").json()["paths"]:
        assert path in shown
    assert "`" not in shown
    for code in ("missing_parameter", "resolution_too_high", "rate_limit_exceeded", "X-API-KEY"):
        assert code in shown


ANSWERS = {
    "good": """{ ok: true, blob: async () => new Blob(["x".repeat(2000)], { type: "image/png" }),
                headers: new Headers({ "Server-Timing": "queue;dur=1.0, network;dur=2500.0" }) }""",
    "bad": """{ ok: false, status: 401, headers: new Headers({ "X-Request-Id": "id-1" }),
                json: async () => ({ error: "API Token not found", error_code: "invalid_x" }) }""",
}


def play(answer: str) -> str:
    return run_in_browser(
        "playground.js",
        before=f"""
        at("image").files = [new File(["photo"], "cat.jpg", {{ type: "image/jpeg" }})];
        at("form").elements = {{ scale: {{ value: "2" }} }};
        at("key").value = " key ";
        globalThis.fetch = async (url, options) => {{ sent = [url, options]; return {answer}; }};
        let sent;
        """,
        after="""
        await at("form").listeners.submit({ preventDefault() {} });
        const [url, { method, headers, body }] = sent;
        const texts = ["status", "before-text", "after-text"].map((id) => at(id).textContent);
        const head = [headers["X-API-KEY"], headers.Accept];
        console.log([url, method, ...head, body.get("scale")].join("|"));
        console.log([body.get("image").name, ...texts, at("download").download].join("|"));
        console.log(at("download").hidden, at("pair").hidden, at("send").disabled);
        """,
    )


@needs_node
def test_the_playground_sends_a_photo_and_shows_both() -> None:
    asked, shown, hidden = play(ANSWERS["good"]).splitlines()
    assert asked == "v1/upscale|POST|key|image/*|2"
    timing = "queue 0.00 s, network 2.50 s"
    before, after = "Before: 160 x 128, 1 KB", "After: 160 x 128, 2 KB"
    assert shown == f"cat.jpg|{timing}|{before}|{after}|cat-x2.png"
    assert hidden == "false false false"


@needs_node
def test_the_playground_says_what_went_wrong() -> None:
    _, shown, hidden = play(ANSWERS["bad"]).splitlines()
    assert "API Token not found (invalid_x, request id-1)" in shown
    assert hidden == "true true false"
