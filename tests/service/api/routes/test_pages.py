"""The pages work with the network unplugged: everything they load is served from here."""

import json
import re
import shlex
import shutil
import subprocess
from importlib.resources import files
from pathlib import PurePath

import pytest
import requests

from tests.service.api.pictures import size_of
from tests.service.api.serving import MakeService, Service

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
        text = asset.text.replace("// ", "").replace("http://www.w3.org/2000/svg", "")  # a name
        assert not re.search(r"(?:https?:)?//[a-z]+\.", text), name
    assert "://" not in page.text


@pytest.mark.parametrize("path", PAGES)
def test_the_content_security_policy_allows_this_server_alone(service: Service, path: str) -> None:
    policy = service.get(path).headers["Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert "unsafe" not in policy
    assert "http" not in policy


@pytest.mark.parametrize("path", PAGES)
def test_no_page_has_inline_scripts_or_styles(service: Service, path: str) -> None:
    page = service.get(path).text
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son[a-z]+=", page)


def load_scripts(service: Service, path: str) -> dict[str, str]:
    """Every script that a page runs, by name: those it names and those they import."""
    names = re.findall(r'<script src="assets/([^"]+)"', service.get(path).text)
    scripts: dict[str, str] = {}
    while names:
        name = names.pop()
        if name not in scripts:
            scripts[name] = service.get(f"/assets/{name}").text
            names += re.findall(r'^import .* from "\./([^"]+)";$', scripts[name], re.MULTILINE)
    return scripts


@pytest.mark.parametrize("path", PAGES)
def test_a_script_finds_every_element_it_looks_up(service: Service, path: str) -> None:
    page = service.get(path).text
    asks = re.compile(r'(?:element|getElementById|setText|hide|reveal)\("([\w-]+)"')
    asked = {
        name for script in load_scripts(service, path).values() for name in asks.findall(script)
    }
    assert asked
    assert asked <= set(re.findall(r'id="([\w-]+)"', page))


def test_the_playground_fetches_its_modules_at_once(service: Service) -> None:
    """One after the other, each would cost a round trip before the page can be used."""
    preloaded = re.findall(r'rel="modulepreload" href="assets/([^"]+)"', service.get("/").text)
    assert {*preloaded, "playground.js"} == set(load_scripts(service, "/"))


def test_every_asset_has_its_media_type(service: Service) -> None:
    kinds = {".js": "text/javascript", ".css": "text/css", ".jpg": "image/jpeg"}
    static = files("upscaled.api") / "static"
    for file in static.iterdir():
        wanted = kinds.get(PurePath(file.name).suffix)
        if wanted is not None:
            answer = service.get(f"/assets/{file.name}")
            assert answer.headers["Content-Type"].startswith(wanted)
            assert answer.content == file.read_bytes()


@pytest.mark.parametrize(
    ("accepted", "is_compressed"),
    [
        ("gzip, deflate, br", True),
        ("br;q=1.0, GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.00, br", False),
        ("identity", False),
        ("x-gzip", False),
    ],
)
def test_texts_are_compressed_for_clients_that_accept_gzip(
    service: Service, accepted: str, is_compressed: bool
) -> None:
    plain = service.get("/assets/playground.js", headers={"Accept-Encoding": "identity"})
    answer = service.get("/assets/playground.js", headers={"Accept-Encoding": accepted})
    assert answer.text == plain.text
    assert answer.headers["Vary"] == plain.headers["Vary"] == "Accept-Encoding"
    assert answer.headers.get("Content-Encoding") == ("gzip" if is_compressed else None)
    lengths = [int(each.headers["Content-Length"]) for each in (answer, plain)]
    assert (lengths[0] < lengths[1] / 2) == is_compressed


def test_photos_are_not_compressed_again(service: Service) -> None:
    assert "Content-Encoding" not in service.get("/assets/sample.jpg").headers


def test_every_example_of_a_model_that_the_page_names_is_there_and_small(service: Service) -> None:
    script = service.get("/assets/models.js").text
    (listed,) = re.findall(r"const EXAMPLES = new Set\(\[(.*?)\]\)", script, re.DOTALL)
    named = re.findall(r'"([^"]+)"', listed)
    static = files("upscaled.api") / "static"
    drawn = [file for file in static.iterdir() if file.name.startswith("model-")]
    assert sorted(f"model-{name}.jpg" for name in named) == sorted(file.name for file in drawn)
    assert {size_of(file.read_bytes()) for file in drawn} == {(240, 180)}
    assert max(len(file.read_bytes()) for file in drawn) < 10_000


def test_the_sample_is_shown_with_a_result_of_its_size(service: Service) -> None:
    source = size_of(service.get("/assets/sample.jpg").content)
    result = size_of(service.get("/assets/sample-x4.jpg").content)
    assert result == (4 * source[0], 4 * source[1])
    page = service.get("/").text
    assert "{} × {} px before, {} × {} px after".format(*source, *result) in page


def test_no_style_shows_hidden_elements() -> None:
    """A class that sets `display` wins over the browser's own rule for `hidden`."""
    style = (files("upscaled.api") / "static" / "style.css").read_text()
    assert "[hidden] { display: none !important; }" in style


# As much of a browser as the scripts need, for node.
BROWSER = """
class Element {
  constructor(name) { Object.assign(this, { name, children: [], listeners: {}, hidden: true }); }
  append(...children) { this.children.push(...children); }
  replaceChildren(...children) { this.children = children; }
  addEventListener(name, listener) { this.listeners[name] = listener; }
  classList = { toggle() {} };
  dataset = {};
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
    source = (files("upscaled.api") / "static" / script).read_text()
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
    assert "X-Upscale-Model string, in the header" in shown
    assert '"auto_scales": [2 or 4, …]' in shown
    assert '"most_input_px": integer or null' in shown
    for code in ("missing_parameter", "resolution_too_high", "rate_limit_exceeded", "X-API-KEY"):
        assert code in shown


def test_every_link_of_the_overview_for_language_models_answers(service: Service) -> None:
    overview = service.get("/llms.txt")
    assert overview.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert overview.text.startswith("# upscaled\n\n> ")
    links = re.findall(r"^- \[[^\]]+\]\(([^)]+)\): \S", overview.text, re.MULTILINE)
    assert len(links) == overview.text.count("](")
    assert {f"{service.url}/openapi.json", f"{service.url}/docs/jobs"} <= set(links)
    assert {link: requests.get(link, timeout=30).status_code for link in links} == dict.fromkeys(
        links, 200
    )


def test_the_overview_for_language_models_is_short(service: Service) -> None:
    assert len(service.get("/llms.txt").content) < 4_000


def test_its_links_begin_with_the_public_url(make_service: MakeService) -> None:
    service = make_service(public_base_url="https://upscale.example.com")
    overview = service.get("/llms.txt").text
    assert "(https://upscale.example.com/docs/jobs)" in overview
    assert service.url not in overview


def test_each_command_of_the_overview_upscales(service: Service) -> None:
    """With a picture of the service's own in place of the examples'."""
    commands = re.findall(r"`(curl [^`]+)`", service.get("/llms.txt").text)
    assert len(commands) == 2
    sample = files("upscaled.api") / "static" / "sample.jpg"
    for command in commands:
        for old, new in (
            ("$API_KEY", service.key),
            ("https://example.com/photo.jpg", f"{service.url}/assets/sample.jpg"),
            ("@photo.jpg", f"@{sample}"),
        ):
            command = command.replace(old, new)
        words = [*shlex.split(command), "--silent"]
        done = subprocess.run(words, capture_output=True, check=True, text=True)
        result = requests.get(json.loads(done.stdout)["result_url"], timeout=30)
        assert size_of(result.content) == (1280, 960)
