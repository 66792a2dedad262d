"""Every block that is not marked is run, in its page's order, against a real service by TLS."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT, Block, read_blocks
from tests.docs.conftest import Site
from tests.running import clean_environment

WHY_NOT = {
    "changes the machine",
    "downloads from the internet",
    "downloads gigabytes",
    "needs docker",
    "needs a file from elsewhere",
    "needs docker and a GPU",
    "needs a container engine and a release",
    "needs a Kubernetes cluster",
    "needs two GPUs",
    "serves until it is stopped",
}
ELSEWHERE = ("runs by itself", "runs it in a container")
"""Ends of a reason that names the test which runs just this."""

RUNNERS = {"bash": ["bash", "-eu"], "python": [sys.executable], "javascript": ["node"]}


def test_a_block_that_is_not_run_names_a_valid_reason() -> None:
    reasons = {block.why_not for page in PAGES for block in read_blocks(page) if block.why_not}
    odd = {why for why in reasons - WHY_NOT if not why.endswith(ELSEWHERE)}
    assert odd == set()
    for why in reasons - WHY_NOT:
        assert (ROOT / why.split()[0]).exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("site", ["nginx"], indirect=True)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_a_page_runs(page: Path, site: Site, origin: str, tmp_path: Path) -> None:
    shutil.copytree(site.photos, tmp_path, dirs_exist_ok=True)
    (tmp_path / ".curlrc").write_text("fail\n")  # else an error's answer is a success to curl
    for block in read_blocks(page):
        if block.language in RUNNERS and not block.why_not:
            _run(block, site, origin, tmp_path)


def _run(block: Block, site: Site, origin: str, folder: Path) -> None:
    program = RUNNERS[block.language][0]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    ending = {"javascript": ".mjs", "python": ".py"}.get(block.language, ".sh")
    script = folder / f"block-{block.line}{ending}"
    script.write_text(_adapt(block.text, site, origin))
    done = subprocess.run(
        [*RUNNERS[block.language], str(script)],
        cwd=folder, env=_environment(site, folder), capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, f"{block}:\n{block.text}\n{done.stdout}{done.stderr}"


def _adapt(text: str, site: Site, origin: str) -> str:
    """Put this machine's addresses in place of the page's."""
    for old, new in (
        ("https://upscale.example.com", site.public_url),
        ("http://127.0.0.1:8000", site.server.url),
        ("--port 8000", f"--port {site.server.url.rpartition(':')[2]}"),
        ("--running --connect", f"--running --connect --port {site.server.url.rpartition(':')[2]}"),
        ("https://example.com", origin),
    ):
        text = text.replace(old, new)
    return text


def _environment(site: Site, folder: Path) -> dict[str, str]:
    """Return the service's settings, a key, and trust in the certificate for every client."""
    bin_dir = Path(sys.executable).parent
    settings = {
        name: value for name, value in site.server.environment.items() if "UPSCALED" in name
    }
    certificate = str(site.certificate.certificate)
    return {
        **clean_environment(**settings),
        "PATH": f"{bin_dir}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "API_KEY": site.server.key,
        "SSL_CERT_FILE": certificate,
        "CURL_CA_BUNDLE": certificate,
        "REQUESTS_CA_BUNDLE": certificate,
        "NODE_EXTRA_CA_CERTS": certificate,
    }
