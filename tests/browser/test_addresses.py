"""Pictures by their address: pasted, dropped or typed, and fetched by the server."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.browser.playground import Playground, red_picture
from tests.service.api.serving import Service, serve

pytestmark = pytest.mark.slow

Open = Callable[..., Playground]

GIVE = """([kind, type, text, target]) => {
  const data = new DataTransfer();
  data.setData(type, text);
  const options = { bubbles: true, cancelable: true };
  const event = kind === "paste"
    ? new ClipboardEvent(kind, { ...options, clipboardData: data })
    : new DragEvent(kind, { ...options, dataTransfer: data });
  document.querySelector(target).dispatchEvent(event);
}"""


class Pictures(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        data = red_picture()
        self.send_response(200 if self.path.startswith("/cats/") else 404)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Pictures) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def fetching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that may fetch from this machine."""
    with serve(tmp_path_factory.mktemp("data"), source_private_cidrs="127.0.0.1/32") as running:
        yield running


def paste(playground: Playground, text: str, target: str = "body") -> None:
    playground.page.evaluate(GIVE, ["paste", "text/plain", text, target])


def test_a_pasted_address_is_fetched_and_upscaled(
    open_page: Open, fetching: Service, site: str, tmp_path: Path
) -> None:
    playground = open_page(url=fetching.url)
    playground.key = fetching.key
    address = f"{site}/cats/black%20cat.png?size=2"
    paste(playground, f"  {address}\n")
    assert playground.text("chosen") == "black cat.png"
    assert playground.text("chosen-facts") == address
    playground.see("no-preview", "The server fetches this picture once it is sent.")
    assert address in playground.text("snippet")
    playground.send()
    playground.wait_for_result()
    assert playground.result_bytes(tmp_path)[0] == "black cat-x4.jpg"
    assert playground.text("fact-after").startswith("640 × 480 px")
    assert playground.text("fact-before") == "unknown"
    assert playground.page.is_hidden("#split")
    assert all(url.startswith(fetching.url) for url in playground.requested if "blob:" not in url)


def test_addresses_are_accepted_by_drop_and_by_the_button(open_page: Open) -> None:
    playground = open_page()
    links = "# a comment\r\nhttps://host.test/a.png\r\nhttp://host.test/b.png\r\n"
    playground.page.evaluate(GIVE, ["drop", "text/uri-list", links, "body"])
    playground.see("chosen", "2 pictures")
    playground.page.once("dialog", lambda dialog: dialog.accept("https://host.test/"))
    playground.page.click("#choose-address")
    playground.see("chosen", "3 pictures")
    names = playground.page.locator("#list strong").all_inner_texts()
    assert names == ["a.png", "b.png", "host.test"]
    playground.page.once("dialog", lambda dialog: dialog.accept("host.test/a.png"))
    playground.page.click("#choose-address")
    assert "This is no address of a picture." in playground.failure()
    assert playground.text("chosen") == "3 pictures"


@pytest.mark.parametrize(
    "text", ["", "just words", "https://host.test/a.png and more", "file:///etc/passwd", "http://"]
)
def test_a_text_that_is_no_address_is_not_fetched(open_page: Open, text: str) -> None:
    playground = open_page()
    paste(playground, text)
    assert playground.text("chosen") == "Choose pictures"


def test_an_address_pasted_into_a_field_adds_no_picture(open_page: Open) -> None:
    playground = open_page()
    paste(playground, "https://host.test/a.png", "#key")
    assert playground.text("chosen") == "Choose pictures"


def test_an_address_that_the_server_does_not_reach_is_reported(
    open_page: Open, fetching: Service, site: str
) -> None:
    playground = open_page(url=fetching.url)
    playground.key = fetching.key
    playground.expect_console_error("status of 400")
    paste(playground, f"{site}/missing.png")
    playground.send()
    assert "The server could not fetch the picture." in playground.failure()
