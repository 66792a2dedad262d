"""Start the service, send it one photo as any client would, save the answer, and go on serving.

The second half of scripts/quickstart. Everything it keeps lies in .upscaled/ of the clone.
"""

import argparse
import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from upscaled.config import Settings, SettingsError, load_settings
from upscaled.errors import ServiceError
from upscaled.image.formats.table import read_header
from upscaled.image.types import Header
from upscaled.state import State, StateError, open_state

ROOT = Path(__file__).resolve().parents[1]
DATA_DIR = ROOT / ".upscaled"
SAMPLE = ROOT / "scripts" / "sample" / "cat.jpg"
HOST = "127.0.0.1"
KEY_NAME = "quickstart"
START_TIMEOUT_S = 900  # a small or busy computer takes minutes to prepare the models
FIRST_NOTE_S = 5  # on an idle computer the service is ready by then, and nothing needs saying
ANSWER_TIMEOUT_S = 900
STOP_TIMEOUT_S = 60


class QuickstartError(Exception):
    """The photo does not come out; the text says why and what to do."""


def main() -> None:
    arguments = read_arguments()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end_on_signal)
    try:
        run(arguments.photo, is_once=arguments.once)
    except KeyboardInterrupt:
        print("\nStopped.")
    except (QuickstartError, SettingsError, StateError) as error:
        sys.exit(f"quickstart: {error}")


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/quickstart", description=__doc__)
    parser.add_argument("photo", nargs="?", type=Path, default=SAMPLE, help="default: a sample")
    parser.add_argument("--once", action="store_true", help="stop once the photo is saved")
    without = "do not install the official weights (realesrgan-x4plus and two more, 43 MB)"
    parser.add_argument("--without-weights", action="store_true", help=without)
    return parser.parse_args()


def end_on_signal(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def run(photo: Path, *, is_once: bool) -> None:
    source, header = read_photo(photo)
    settings = load_settings(data_dir=DATA_DIR)
    scale = choose_scale(header, settings)
    secret = make_key(settings)
    port = find_port(settings.port)
    with serving(port) as process:
        print(f"Serving on http://{HOST}:{port}")
        reason = "" if scale == 4 else f" (scale 4 takes sides to {settings.max_input_side_x4} px)"
        print(
            f"  {photo.name}: {header.width_px} x {header.height_px}, sent at scale {scale}{reason}"
        )
        started_s = time.monotonic()
        result, model = send(source, photo.name, scale, secret, port)
        seconds = time.monotonic() - started_s
        path, size = save(result, photo)
        by = f"by {model}, " if model else ""
        print(f"  {path.name}: {size.width_px} x {size.height_px}, {by}after {seconds:.1f} s")
        if is_once:
            return
        print(f"\nYour turn, in a browser: http://{HOST}:{port}, with the key {secret}")
        print(f"or:\n  {describe_curl(scale, secret, port)}\n")
        print(f"Log: {DATA_DIR / 'service.log'}\nIf something is wrong:\n  {describe_doctor(port)}")
        print("\nCtrl-C stops.", flush=True)
        process.wait()
        raise QuickstartError(f"the service ended by itself\n{read_log_end()}")


def read_photo(photo: Path) -> tuple[bytes, Header]:
    """Read the photo's bytes and its header.

    Raises:
        QuickstartError: there is no such file, or it is no image that upscaled takes.
    """
    try:
        source = photo.read_bytes()
        return source, read_header(source)
    except OSError as error:
        raise QuickstartError(f"cannot read {photo}: {error.strerror}") from None
    except ServiceError as error:
        raise QuickstartError(f"{photo}: {error.public_text}") from None


def choose_scale(header: Header, settings: Settings) -> int:
    """Return 4 where the limits allow it, else 2.

    Raises:
        QuickstartError: the photo is too large for either.
    """
    side_px = max(header.width_px, header.height_px)
    for scale in (4, 2):
        if side_px <= settings.max_input_side_px(scale):
            return scale
    raise QuickstartError(
        f"the photo's longest side is {side_px} px; "
        f"the limit is {settings.max_input_side_x4} px at scale 4 "
        f"and {settings.max_input_side_x2} px at scale 2"
    )


def make_key(settings: Settings) -> str:
    """Return the API key of earlier runs, or a new one."""
    DATA_DIR.mkdir(mode=0o700, exist_ok=True)
    file = DATA_DIR / "key"
    with open_state(settings) as state:
        secret = file.read_text().strip() if file.exists() else ""
        if secret and state.keys.verify(secret):
            return secret
        secret = create_key(state)
    file.touch(mode=0o600)
    file.write_text(secret + "\n")
    return secret


def create_key(state: State) -> str:
    if any(key.name == KEY_NAME and key.revoked_at_s is None for key in state.keys.list()):
        state.keys.revoke(KEY_NAME)  # its secret is lost, so no client can be using it
    return state.keys.create(KEY_NAME, credits=1000)


def find_port(wanted: int) -> int:
    """Return the wanted port where it is free, else any free one."""
    for port in (wanted, 0):
        try:
            with socket.create_server((HOST, port)) as probing:
                return int(probing.getsockname()[1])
        except OSError:
            continue
    raise QuickstartError(f"no port of {HOST} is free")


@contextmanager
def serving(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run the service in a process of its own until the block ends.

    Raises:
        QuickstartError: it does not become ready, or does not stop in order.
    """
    command = [str(Path(sys.executable).with_name("upscaled")), "serve"]
    command += ["--host", HOST, "--port", str(port)]
    # The log's end is shown to a person where the start fails.
    for_people = {"UPSCALED_LOG_FORMAT": "text"}
    environment = os.environ | for_people | {"UPSCALED_DATA_DIR": str(DATA_DIR)}
    with (DATA_DIR / "service.log").open("wb") as log:
        # A session of its own: Ctrl-C reaches this script alone, which then stops the service once.
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_until_ready(process, port)
        yield process
    finally:
        process.terminate()
        try:
            status = process.wait(STOP_TIMEOUT_S)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            process.kill()
            process.wait()
            status = -signal.SIGKILL
    if status != 0:
        raise QuickstartError(f"the service ended with status {status}\n{read_log_end()}")


def wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    """Wait until the service can upscale, and print now and then that it is still starting.

    Raises:
        QuickstartError: it ends by itself, or takes longer than `START_TIMEOUT_S`.
    """
    started_s = time.monotonic()
    note_after_s = FIRST_NOTE_S
    while (waited_s := time.monotonic() - started_s) < START_TIMEOUT_S:
        if process.poll() is not None:
            raise QuickstartError(f"the service does not start\n{read_log_end()}")
        if is_ready(port):
            return
        if waited_s >= note_after_s:
            print(f"Preparing the models for this computer: {waited_s:.0f} s so far", flush=True)
            note_after_s *= 2
        time.sleep(0.2)
    raise QuickstartError(f"the service is not ready after {START_TIMEOUT_S} s\n{read_log_end()}")


def is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def read_log_end() -> str:
    """Read the log's last lines, but for those of requests."""
    text = (DATA_DIR / "service.log").read_text(errors="replace")
    lines = [
        line for line in text.splitlines() if " upscaled.api.telemetry.access_log: " not in line
    ]
    return "\n".join([f"The end of {DATA_DIR / 'service.log'}:", *lines[-12:]])


def send(source: bytes, name: str, scale: int, secret: str, port: int) -> tuple[bytes, str]:
    """Send one POST /v1/upscale; return the encoded result and the model's name, or "".

    Raises:
        QuickstartError: the service answered an error, in its words, or not at all.
    """
    body, content_type = encode_form(source, name, scale)
    headers = {"X-API-KEY": secret, "Accept": "image/*", "Content-Type": content_type}
    connection = http.client.HTTPConnection(HOST, port, timeout=ANSWER_TIMEOUT_S)
    try:
        connection.request("POST", "/v1/upscale", body, headers)
        response = connection.getresponse()
        answer = response.read()
        model = response.headers.get("X-Upscale-Model", "")
    except OSError as error:
        raise QuickstartError(f"no answer: {error}\n{read_log_end()}") from None
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        raise QuickstartError(f"answer {response.status}: {json.loads(answer)['error']}")
    return answer, model


def encode_form(source: bytes, name: str, scale: int) -> tuple[bytes, str]:
    """Encode a multipart/form-data body with `image` and `scale`; also return its content type."""
    boundary = uuid.uuid4().hex
    file_name = name.replace("\\", "_").replace('"', "_")
    parts = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="scale"\r\n\r\n{scale}\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{file_name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = parts.encode() + source + f"\r\n--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"


def save(result: bytes, photo: Path) -> tuple[Path, Header]:
    """Write the result into the current folder: its path, and what its header says."""
    header = read_header(result)
    path = Path(f"result-{photo.stem}.{'png' if header.format == 'PNG' else 'jpg'}")
    try:
        path.write_bytes(result)
    except OSError as error:
        raise QuickstartError(f"cannot write {path.absolute()}: {error.strerror}") from None
    return path, header


def describe_curl(scale: int, secret: str, port: int) -> str:
    url = f"http://{HOST}:{port}/v1/upscale"
    command = ["curl", url, "-H", f"X-API-KEY: {secret}", "-H", "Accept: image/*"]
    command += ["-F", "image=@photo.jpg", "-F", f"scale={scale}", "-o", "upscaled.jpg"]
    return shlex.join(command)


def describe_doctor(port: int) -> str:
    """Return the command that examines this installation, not the one of the default folder."""
    upscaled = Path(sys.executable).with_name("upscaled")
    return shlex.join(
        ["env", f"UPSCALED_DATA_DIR={DATA_DIR}", str(upscaled), "doctor", "--port", str(port)]
    )


if __name__ == "__main__":
    main()
