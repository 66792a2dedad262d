"""The command line of scripts/bundle."""

import argparse
import platform
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path

from scripts.bundling.archive import pack
from scripts.bundling.assembling import Parts, assemble, name_bundle
from scripts.bundling.gathering import ROOT, NotFound, gather
from scripts.bundling.manifest import SigningFailed, sign, write_manifest
from scripts.bundling.models import UnfitModel, find_model_files
from scripts.bundling.target import Target, UnfitTarget, read_target, this_platform
from scripts.bundling.wheels import UnfitWheel
from upscaled.config import load_settings
from upscaled_models.errors import ModelError
from upscaled_models.store import ModelStore

WEIGHTS_EXTRA = "realesrgan"
FAILURES = (UnfitTarget, UnfitWheel, UnfitModel, ModelError, NotFound, SigningFailed)

_ABOUT = """\
Make one archive that installs upscaled on a Linux machine without a network: wheels of upscaled and
all it needs, the models, a list of every file's SHA-256, a bill of materials (CycloneDX), and an
installer that needs nothing over there but Python itself.
"""

_EXAMPLES = """\
examples:
  scripts/bundle                                            # for a machine like this one
  scripts/bundle --platform manylinux_2_28_x86_64 --python 3.12 --accelerator cuda
  scripts/bundle --sign ~/.ssh/id_ed25519                   # the list of files, by an SSH key
  .venv/bin/upscaled models fetch realesrgan-x2plus         # and then: scripts/bundle

Over there: tar -xf ARCHIVE, then ./install --help in the folder that came out of it.
The machine that installs needs the signer's public key from somewhere else than the archive.
The same tree, models and packages give the same archive, byte for byte.
"""


def main(arguments_given: list[str] | None = None) -> None:
    """Make the archive; its path is all that goes to standard output."""
    arguments = _parser().parse_args(arguments_given)
    try:
        target = read_target(
            arguments.platform or this_platform(), arguments.python, arguments.accelerator
        )
        archive = make_bundle(
            target,
            _choose_extras(arguments),
            arguments.models_dir,
            arguments.sign,
            arguments.output,
        )
    except (*FAILURES, OSError) as error:
        sys.exit(f"scripts/bundle: {error}")
    _say(f"{archive.stat().st_size / 1e6:,.0f} MB")
    print(archive)


def make_bundle(
    target: Target, extras: list[str], models_dir: Path | None, key: Path | None, output: Path
) -> Path:
    """Make the archive in the folder `output`, replacing one of the same name.

    Args:
        models_dir: the models to take along beside the shipped ones; None: the settings' own.
        key: what to sign with; None: not at all.

    Raises:
        NotFound, UnfitWheel: something has no wheel for the target.
        UnfitModel, ModelError: a model's file is damaged.
        SigningFailed: the key does not sign.
    """
    models = find_model_files(ModelStore(models_dir or load_settings().models_dir))
    output.mkdir(parents=True, exist_ok=True)
    # Beside the archive: the system's own folder of temporary files may be a small one in memory.
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=output) as work:
        wheels_dir = Path(work, "wheels")
        wheels_dir.mkdir()
        parts = Parts(gather(target, extras, wheels_dir, _say), extras, models, target)
        folder = Path(work, name_bundle(parts))
        assemble(parts, folder)
        shutil.rmtree(wheels_dir)
        manifest = write_manifest(folder)
        if key is not None:
            sign(manifest, key)
        archive = output / f"{folder.name}.tar"
        pack(folder, archive)
    return archive


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bundle",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_target(parser.add_argument_group("the machine to install on"))
    _add_contents(parser.add_argument_group("the archive"))
    return parser


def _add_target(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--platform",
        metavar="TAG",
        help="the oldest machine to install on, as wheels name it: manylinux_2_28_x86_64, "
        "manylinux_2_36_aarch64 (the figures are the C library's; default: this machine)",
    )
    group.add_argument(
        "--python",
        metavar="3.X",
        default=".".join(platform.python_version_tuple()[:2]),
        help="the Python over there (default: %(default)s, as here)",
    )
    group.add_argument(
        "--accelerator",
        choices=["cpu", "cuda"],
        default="cpu",
        help="which build of torch: cuda adds gigabytes (default: %(default)s)",
    )


def _add_contents(group: argparse._ArgumentGroup) -> None:
    extra = "what upscaled needs for it too; may be given more than once"
    group.add_argument("--extra", choices=_list_extras(), action="append", default=[], help=extra)
    weights = "leave out the official weights as a package (realesrgan-x4plus and two more, 43 MB)"
    group.add_argument("--without-weights", action="store_true", help=weights)
    models = "every model here goes along (default: the models folder of this machine's upscaled)"
    group.add_argument("--models-dir", metavar="DIR", type=Path, help=models)
    key = "sign the list of files with this SSH key (or a public one that an agent holds)"
    group.add_argument("--sign", metavar="KEY", type=Path, help=key)
    output = "where the archive goes (default: %(default)s)"
    group.add_argument("--output", metavar="DIR", type=Path, default=Path("dist"), help=output)


def _list_extras() -> list[str]:
    """List the extras that users can choose: pyproject's but the developers' own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [name for name in project["optional-dependencies"] if name != "dev"]


def _choose_extras(arguments: argparse.Namespace) -> list[str]:
    """Return the chosen extras, and that of the official weights unless it was declined."""
    weights = [] if arguments.without_weights else [WEIGHTS_EXTRA]
    return list(dict.fromkeys([*arguments.extra, *weights]))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
