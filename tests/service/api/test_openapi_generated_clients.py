"""Client generators read the OpenAPI document; their clients upload, run jobs, take webhooks.

The tools are no dependencies of the project: `scripts/clients --set-up` installs those in Python,
and npm brings the others, of which NODE_PATH names the folder.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import requests

from tests.listening import free_port
from tests.service.api.executors import IdleExecutor
from tests.service.api.pictures import size_of
from tests.service.api.serving import Service, serve

ROOT = Path(__file__).resolve().parents[3]
GENERATORS = Path(sys.prefix) / "generators" / "bin"
PHOTO = ROOT / "service" / "upscaled" / "api" / "static" / "sample.jpg"

OPENAPI_PYTHON_CLIENT = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from standardwebhooks import Webhook, WebhookVerificationError
from upscaled_client import AuthenticatedClient
from upscaled_client.api.default import get_credits, get_job, upscale
from upscaled_client.models import JobStatus, Scale, UpscaleUpload
from upscaled_client.types import File

url, key, photo, secret, other_secret = sys.argv[1:]
client = AuthenticatedClient(url, token=key, prefix="", auth_header_name="X-API-KEY")
assert get_credits.sync(client=client).credits_remaining == 1_000_000


def upload():
    return UpscaleUpload(File(Path(photo).open("rb"), file_name="photo.jpg"), Scale.VALUE_2)


print(upscale.sync(client=client, body=upload()).result_url)

refused = upscale.sync_detailed(
    client=AuthenticatedClient(url, token="wrong", prefix="", auth_header_name="X-API-KEY"),
    body=upload(),
)
assert refused.parsed.error_code == "invalid_auth_token", refused

events = []


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = dict(self.headers)
        try:
            Webhook(other_secret).verify(body, headers)
        except WebhookVerificationError:
            events.append(Webhook(secret).verify(body, headers))
        self.send_response(204)
        self.end_headers()


with HTTPServer(("127.0.0.1", 0), Receiver) as receiver:
    receiver.timeout = 60
    job = upscale.sync(
        client=client,
        body=upload(),
        prefer="respond-async",
        x_upscale_webhook=f"http://127.0.0.1:{receiver.server_address[1]}/hook",
    )
    receiver.handle_request()
(event,) = events
assert event["type"] == "job.succeeded", event
assert event["data"]["id"] == job.id, event
ended = get_job.sync(client=client, job_id=job.id)
assert ended.status == JobStatus.SUCCEEDED, ended
print(ended.result_url)
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
import { createServer, IncomingMessage } from "node:http";
import { AddressInfo } from "node:net";
import { Webhook } from "standardwebhooks";
import { Configuration, DefaultApi, JobFromJSON, JobStatus, ResponseError, Scale } from "./index";

interface Call { headers: Record<string, string>; body: string }

async function read(request: IncomingMessage): Promise<Call> {
  let body = "";
  for await (const part of request) body += part;
  return { headers: request.headers as Record<string, string>, body };
}

function verifies(secret: string, call: Call): boolean {
  try {
    new Webhook(secret).verify(call.body, call.headers);
    return true;
  } catch {
    return false;
  }
}

async function main(): Promise<void> {
  const [basePath, apiKey, photo, secret, otherSecret] = process.argv.slice(2);
  const api = new DefaultApi(new Configuration({ basePath, apiKey }));
  if ((await api.getCredits()).creditsRemaining !== 1_000_000) throw new Error("no credits");
  const image = await openAsBlob(photo);
  console.log((await api.upscale({ image, scale: Scale.NUMBER_2 })).resultUrl);

  const wrong = new DefaultApi(new Configuration({ basePath, apiKey: "wrong" }));
  const refused = await wrong.upscale({ image, scale: Scale.NUMBER_2 }).catch((error) => error);
  const { error_code } = await (refused as ResponseError).response.json();
  if (error_code !== "invalid_auth_token") throw new Error(error_code);

  let onCall: (call: Call) => void;
  const called = new Promise<Call>((resolve) => (onCall = resolve));
  const receiver = createServer(async (request, response) => {
    onCall(await read(request));
    response.writeHead(204).end();
  });
  await new Promise<void>((resolve) => receiver.listen(0, "127.0.0.1", resolve));
  const { port } = receiver.address() as AddressInfo;
  const accepted = await api.upscaleRaw({
    image,
    scale: Scale.NUMBER_2,
    prefer: "respond-async",
    xUpscaleWebhook: `http://127.0.0.1:${port}/hook`,
  });
  const job = JobFromJSON(await accepted.raw.json()); // `value()` is that of an answer 200
  const call = await called;
  receiver.close();
  if (!verifies(secret, call)) throw new Error("the webhook is not genuine");
  if (verifies(otherSecret, call)) throw new Error("any secret verifies it");
  const event = JSON.parse(call.body);
  if (event.type !== "job.succeeded" || event.data.id !== job.id) throw new Error(call.body);
  const ended = await api.getJob({ jobId: job.id });
  if (ended.status !== JobStatus.Succeeded) throw new Error(ended.status);
  console.log(ended.resultUrl);
}

void main();
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def with_jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with room for jobs, whose webhooks may go to loopback."""
    folder = tmp_path_factory.mktemp("with_jobs")
    with serve(folder, IdleExecutor(), webhook_cidrs="127.0.0.0/8") as running:
        yield running


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
        pytest.skip(f"{name} is not installed: scripts/clients --set-up")
    return GENERATORS / name


def require_java() -> None:
    if shutil.which("java") is None:
        pytest.skip("Java is not installed, in which openapi-generator is written")


def require_npm(path: str, package: str = "") -> Path:
    """A package's folder, or another path in `node_modules`."""
    folders = [Path(each) for each in os.environ.get("NODE_PATH", "").split(":") if each]
    found = [each / path for each in folders if (each / path).exists()]
    if not found:
        package = package or path
        pytest.skip(f"{package} is not installed: npm install {package}, and set NODE_PATH")
    return found[0]


def require_npm_program(name: str, package: str) -> Path:
    return require_npm(f".bin/{name}", package)


def save(service: Service, path: str, folder: Path) -> Path:
    document = folder / "openapi.json"
    document.write_bytes(service.get(path).content)
    return document


def assert_delivers(
    service: Service, command: Sequence[str | Path], cwd: Path, *arguments: str
) -> None:
    """Run a program that uploads `PHOTO`, and prints the URL of each result."""
    printed = run(*command, service.url, service.key, PHOTO, *arguments, cwd=cwd).split()
    assert len(printed) == (2 if arguments else 1)
    width, height = size_of(PHOTO.read_bytes())
    for url in printed:
        assert size_of(requests.get(url, timeout=30).content) == (2 * width, 2 * height)


def assert_delivers_jobs(service: Service, command: Sequence[str | Path], cwd: Path) -> None:
    """Run a program that also runs a job to its end, and verifies its webhook."""
    # Each call makes a new secret: the client gets the one that signs, and one that does not.
    other, secret = (
        service.state.webhooks.configure("test", None, renews_secret=True).secret for _ in range(2)
    )
    assert_delivers(service, command, cwd, secret, other)


def generate(service: Service, language: str, folder: Path) -> Path:
    clients = ROOT / "scripts" / "clients"
    run(sys.executable, clients, folder, "--url", service.url, "--only", language, cwd=folder)
    return folder / language


@pytest.mark.parametrize("path", ["/openapi.json", "/openapi-upload.json"])
def test_redocly_finds_no_error_in_the_document(
    service: Service, tmp_path: Path, path: str
) -> None:
    redocly = require_npm_program("redocly", "@redocly/cli")
    report = run(redocly, "lint", "--format=json", save(service, path, tmp_path), cwd=tmp_path)
    assert json.loads(report)["totals"]["errors"] == 0


def test_the_python_client_uploads_runs_a_job_and_verifies_its_webhook(
    with_jobs: Service, tmp_path: Path
) -> None:
    """Of `scripts/clients`, by openapi-python-client, from the document with both bodies."""
    require_generator("openapi-python-client")
    client = generate(with_jobs, "python", tmp_path)
    (client / "use.py").write_text(OPENAPI_PYTHON_CLIENT)
    assert_delivers_jobs(with_jobs, [GENERATORS / "python", "use.py"], client)


def test_the_python_client_of_openapi_generator_uploads(service: Service, tmp_path: Path) -> None:
    require_java()
    generate = require_generator("openapi-generator-cli")
    document = save(service, "/openapi-upload.json", tmp_path)
    run(generate, "generate", "-i", document, "-g", "python", "-o", "client", cwd=tmp_path)
    (tmp_path / "client" / "upload.py").write_text(OPENAPI_GENERATOR_PYTHON)
    assert_delivers(service, [GENERATORS / "python", "upload.py"], tmp_path / "client")


def test_the_typescript_client_uploads_runs_a_job_and_verifies_its_webhook(
    with_jobs: Service, tmp_path: Path
) -> None:
    """Of `scripts/clients`, by openapi-generator; compiled strictly."""
    require_java()
    require_generator("openapi-generator-cli")
    compiler = require_npm_program("tsc", "typescript @types/node")
    types = compiler.parents[1] / "@types"
    client = generate(with_jobs, "typescript", tmp_path)
    (client / "node_modules").mkdir()
    webhooks = require_npm("standardwebhooks")
    (client / "node_modules" / "standardwebhooks").symlink_to(webhooks)
    (client / "src" / "use.ts").write_text(TYPESCRIPT_FETCH)
    options = ["--strict", "--target", "es2022", "--lib", "es2022,dom", "--module", "commonjs"]
    options += ["--moduleResolution", "bundler", "--types", "node", "--typeRoots", str(types)]
    run(compiler, *options, "--ignoreConfig", "--outDir", "built", "src/use.ts", cwd=client)
    assert_delivers_jobs(with_jobs, ["node", "built/use.js"], client)


def test_clients_that_are_there_are_not_touched(with_jobs: Service, tmp_path: Path) -> None:
    (tmp_path / "python").mkdir()
    with pytest.raises(AssertionError, match="python is there already"):
        generate(with_jobs, "python", tmp_path)
    assert list((tmp_path / "python").iterdir()) == []


def test_no_client_is_generated_where_the_service_does_not_answer(tmp_path: Path) -> None:
    require_generator("openapi-python-client")
    command = [sys.executable, str(ROOT / "scripts" / "clients"), str(tmp_path / "new")]
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(AssertionError, match=f"{url}/openapi.json: .*refused"):
        run(*command, "--url", url, "--only", "python", cwd=tmp_path)
    assert list((tmp_path / "new").iterdir()) == []
