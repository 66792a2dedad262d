"""Client generators read the OpenAPI document, and each client that they write uploads a photo.

The tools are no dependencies of the project: `clients/requirements.txt` says how to install those
in Python, and npm brings the others, of which NODE_PATH names the folder.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import requests

from tests.service.api.pictures import size_of
from tests.service.api.serving import Service

GENERATORS = Path(sys.prefix) / "generators" / "bin"
PHOTO = Path(__file__).parents[3] / "service" / "upscaled" / "api" / "static" / "sample.jpg"

OPENAPI_PYTHON_CLIENT = """
import sys
from pathlib import Path
from upscaled_client import AuthenticatedClient
from upscaled_client.api.default import get_credits, upscale
from upscaled_client.models import Scale, UpscaleUpload
from upscaled_client.types import File

url, key, photo = sys.argv[1:]
client = AuthenticatedClient(url, token=key, prefix="", auth_header_name="X-API-KEY")
assert get_credits.sync(client=client).credits_remaining == 1_000_000
image = File(Path(photo).open("rb"), file_name="photo.jpg")
print(upscale.sync(client=client, body=UpscaleUpload(image, Scale.VALUE_2)).result_url)

refused = upscale.sync_detailed(
    client=AuthenticatedClient(url, token="wrong", prefix="", auth_header_name="X-API-KEY"),
    body=UpscaleUpload(image, Scale.VALUE_2),
)
assert refused.parsed.error_code == "invalid_auth_token", refused
"""

OPENAPI_GENERATOR_PYTHON = """
import sys
from pathlib import Path
from openapi_client import ApiClient, ApiException, Configuration, DefaultApi, Scale

url, key, photo = sys.argv[1:]
api = DefaultApi(ApiClient(Configuration(host=url, api_key={"ApiKey": key})))
assert api.get_credits().credits_remaining == 1_000_000
image = ("photo.jpg", Path(photo).read_bytes())
print(api.upscale(image=image, scale=Scale.NUMBER_2).result_url)

wrong = DefaultApi(ApiClient(Configuration(host=url, api_key={"ApiKey": "wrong"})))
try:
    wrong.upscale(image=image, scale=Scale.NUMBER_2)
except ApiException as error:
    assert error.data.error_code == "invalid_auth_token", error
else:
    raise AssertionError("a wrong key was taken")
"""

TYPESCRIPT_FETCH = """
import { openAsBlob } from "node:fs";
import { Configuration, DefaultApi, ResponseError, Scale } from "./index";

async function main(): Promise<void> {
  const [basePath, apiKey, photo] = process.argv.slice(2);
  const api = new DefaultApi(new Configuration({ basePath, apiKey }));
  if ((await api.getCredits()).creditsRemaining !== 1_000_000) throw new Error("no credits");
  const image = await openAsBlob(photo);
  console.log((await api.upscale({ image, scale: Scale.NUMBER_2 })).resultUrl);

  const wrong = new DefaultApi(new Configuration({ basePath, apiKey: "wrong" }));
  const refused = await wrong.upscale({ image, scale: Scale.NUMBER_2 }).catch((error) => error);
  const { error_code } = await (refused as ResponseError).response.json();
  if (error_code !== "invalid_auth_token") throw new Error(error_code);
}

void main();
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(each) for each in command],
        cwd=cwd,
        # The generators start ruff and each other by name.
        env={**os.environ, "PATH": f"{GENERATORS}:{os.environ['PATH']}", "PYTHONPATH": ""},
        capture_output=True,
        check=False,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def require_generator(name: str) -> Path:
    if not (GENERATORS / name).exists():
        pytest.skip(f"{name} is not installed: see tests/service/api/clients/requirements.txt")
    return GENERATORS / name


def require_java() -> None:
    if shutil.which("java") is None:
        pytest.skip("Java is not installed, in which openapi-generator is written")


def require_npm(name: str, package: str) -> Path:
    folders = [Path(each) for each in os.environ.get("NODE_PATH", "").split(":") if each]
    tools = [each / ".bin" / name for each in folders if (each / ".bin" / name).exists()]
    if not tools:
        pytest.skip(f"{package} is not installed: npm install {package}, and set NODE_PATH")
    return tools[0]


def save(service: Service, path: str, folder: Path) -> Path:
    document = folder / "openapi.json"
    document.write_bytes(service.get(path).content)
    return document


def assert_delivers(service: Service, command: Sequence[str | Path], cwd: Path) -> None:
    """Run a program that uploads `PHOTO` and prints the URL of the result."""
    printed = run(*command, service.url, service.key, PHOTO, cwd=cwd)
    result = requests.get(printed.strip(), timeout=30)
    width, height = size_of(PHOTO.read_bytes())
    assert size_of(result.content) == (2 * width, 2 * height)


@pytest.mark.parametrize("path", ["/openapi.json", "/openapi-upload.json"])
def test_redocly_finds_no_error_in_the_document(
    service: Service, tmp_path: Path, path: str
) -> None:
    redocly = require_npm("redocly", "@redocly/cli")
    report = run(redocly, "lint", "--format=json", save(service, path, tmp_path), cwd=tmp_path)
    assert json.loads(report)["totals"]["errors"] == 0


def test_the_client_of_openapi_python_client_uploads(service: Service, tmp_path: Path) -> None:
    """It makes a client of the document with both bodies."""
    generate = require_generator("openapi-python-client")
    document = save(service, "/openapi.json", tmp_path)
    run(generate, "generate", "--path", document, "--output-path", "client", cwd=tmp_path)
    (tmp_path / "client" / "upload.py").write_text(OPENAPI_PYTHON_CLIENT)
    assert_delivers(service, [GENERATORS / "python", "upload.py"], tmp_path / "client")


def test_the_python_client_of_openapi_generator_uploads(service: Service, tmp_path: Path) -> None:
    require_java()
    generate = require_generator("openapi-generator-cli")
    document = save(service, "/openapi-upload.json", tmp_path)
    run(generate, "generate", "-i", document, "-g", "python", "-o", "client", cwd=tmp_path)
    (tmp_path / "client" / "upload.py").write_text(OPENAPI_GENERATOR_PYTHON)
    assert_delivers(service, [GENERATORS / "python", "upload.py"], tmp_path / "client")


def test_the_typescript_client_of_openapi_generator_uploads(
    service: Service, tmp_path: Path
) -> None:
    require_java()
    generate = require_generator("openapi-generator-cli")
    compiler = require_npm("tsc", "typescript @types/node")
    types = compiler.parents[1] / "@types"
    document = save(service, "/openapi-upload.json", tmp_path)
    run(generate, "generate", "-i", document, "-g", "typescript-fetch", "-o", "src", cwd=tmp_path)
    (tmp_path / "src" / "upload.ts").write_text(TYPESCRIPT_FETCH)
    options = ["--strict", "--target", "es2022", "--lib", "es2022,dom", "--module", "commonjs"]
    options += ["--moduleResolution", "bundler", "--types", "node", "--typeRoots", str(types)]
    run(compiler, *options, "--outDir", "built", "src/upload.ts", cwd=tmp_path)
    assert_delivers(service, ["node", "built/upload.js"], tmp_path)
