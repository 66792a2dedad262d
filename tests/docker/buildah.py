"""Build images with Debian's buildah, in a store of their own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

_PIP_SETTING = re.compile(r"^(?P<source>[\w:-]+)\.(?P<name>[a-z-]+)='(?P<value>.*)'$")


class Buildah:
    """One store of images and working containers, kept under `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.store_options = [f"--root={folder / 'store'}", f"--runroot={folder / 'run'}"]
        self._command = ["buildah", *self.store_options]

    def run(self, *arguments: str) -> str:
        """Run one buildah command and return its output; its errors go to the test's own."""
        # chroot: the isolation that works inside a container or a small virtual machine too.
        environment = os.environ | {"BUILDAH_ISOLATION": "chroot"}
        finished = subprocess.run(
            [*self._command, *arguments], env=environment, stdout=subprocess.PIPE, text=True
        )
        assert finished.returncode == 0, f"buildah {arguments[0]}: {finished.stdout}"
        return finished.stdout.strip()

    def import_root(self, root: Path, name: str) -> None:
        """Make the files under `root` an image."""
        container = self.run("from", "scratch")
        self.run("add", "--quiet", container, str(root), "/")
        self.run("commit", "--quiet", container, name)
        self.run("rm", container)

    def build(self, context: Path, dockerfile: Path, name: str, arguments: dict[str, str]) -> None:
        """Build an image; pip works in there as it is configured to work out here."""
        configuration = self._folder / "pip.conf"
        settings = read_pip_settings()
        configuration.write_text(
            "\n".join(["[global]", *(f"{key} = {value}" for key, value in settings.items())])
        )
        options = ["--pull-never", "--format", "docker", "--file", str(dockerfile), "--tag", name]
        options += ["--secret", f"id=pip.conf,src={configuration}"]
        for path in local_paths(settings):
            options += ["--volume", f"{path}:{path}:ro"]
        for key, value in arguments.items():
            options += ["--build-arg", f"{key}={value}"]
        self.run("build", *options, str(context))

    def inspect(self, image: str) -> dict[str, Any]:
        """Return the image's configuration, as Docker names it."""
        found: dict[str, Any] = json.loads(self.run("inspect", "--type", "image", image))
        configuration: dict[str, Any] = found["Docker"]["config"]
        return configuration

    def mount(self, image: str) -> Path:
        """Mount the files of a new working container of the image."""
        return Path(self.run("mount", self.run("from", "--pull-never", image)))


def read_pip_settings() -> dict[str, str]:
    """Read pip's configuration; the environment wins over files, as it does for pip."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    found = [match for line in listed.splitlines() if (match := _PIP_SETTING.match(line))]
    found.sort(key=lambda match: match["source"] == ":env:")
    return {match["name"]: match["value"].replace(r"\n", " ") for match in found}


def local_paths(settings: dict[str, str]) -> list[Path]:
    """Files and folders of this machine that the settings lead to."""
    paths = set()
    for token in " ".join(settings.values()).split():
        if token.startswith("file://"):
            paths.add(Path(token.removeprefix("file://")).parent)  # an index links to its siblings
        elif token.startswith("/"):
            paths.add(Path(token))
    return sorted(path for path in paths if path.exists())
