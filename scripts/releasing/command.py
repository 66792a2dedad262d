"""The command line of scripts/release."""

import argparse
import datetime as dt
import sys
from pathlib import Path

from scripts.bundling.gathering import ROOT
from scripts.bundling.target import CannotBundle, Target, read_target, this_platform
from scripts.releasing.artifacts import Plan, make_release
from scripts.releasing.cutting import CannotRelease, cut
from scripts.releasing.image import find_builder
from upscaled_models.errors import ModelError

_EXAMPLES = """\
examples:
  scripts/release cut 0.2.0             # the number, the changelog's section, a commit and a tag
  scripts/release make                  # for this machine: wheel, bundle, CPU image
  scripts/release make --bundle manylinux_2_28_x86_64,3.12,cuda --image cuda --sign ~/.ssh/id

Nothing is published: push the commit and the tag, and put the folder where users find it.
"""


def main(arguments_given: list[str] | None = None) -> None:
    """Cut a version or make its files; the folder's path is all that goes to standard output."""
    arguments = _parser().parse_args(arguments_given)
    try:
        if arguments.command == "cut":
            cut(ROOT, arguments.version, dt.datetime.now(dt.UTC).date())
        else:
            print(make_release(ROOT, _read_plan(arguments), arguments.output))
    except (CannotRelease, CannotBundle, ModelError, OSError) as error:
        sys.exit(f"scripts/release: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/release",
        description="Cut a version, and make what is published of it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    cutting = commands.add_parser("cut", help="number, changelog, commit and tag of a version")
    cutting.add_argument("version", metavar="X.Y.Z", help="above the version of this tree")
    _add_making(commands.add_parser("make", help="files of the version of this tree"))
    return parser


def _add_making(making: argparse.ArgumentParser) -> None:
    bundle = "a bundle for PLATFORM,PYTHON,ACCELERATOR, as scripts/bundle takes them; may be given "
    bundle += "more than once (default: one for this machine, cpu)"
    making.add_argument(
        "--bundle", metavar="P,V,A", type=_read_bundle, action="append", help=bundle
    )
    image = "an image for cpu or cuda; may be given more than once (default: cpu)"
    making.add_argument("--image", choices=["cpu", "cuda"], action="append", help=image)
    making.add_argument("--without-image", action="store_true", help="no image")
    option = "one more option of the image's build: --image-option=--build-arg=WEIGHTS=none"
    making.add_argument("--image-option", metavar="O", action="append", default=[], help=option)
    accept = "a vulnerability that does not stop the release; SECURITY.md must give the reason"
    making.add_argument("--accept", metavar="ID", action="append", default=[], help=accept)
    key = "sign the list of checksums with this SSH key"
    making.add_argument("--sign", metavar="KEY", type=Path, help=key)
    output = "where the folder goes (default: %(default)s)"
    making.add_argument("--output", metavar="DIR", type=Path, default=Path("dist"), help=output)


def _read_bundle(text: str) -> Target:
    """Read `manylinux_2_28_x86_64,3.12,cuda`."""
    match text.split(","):
        case [platform, python, ("cpu" | "cuda") as accelerator]:
            try:
                return read_target(platform, python, accelerator)
            except CannotBundle as error:
                raise argparse.ArgumentTypeError(str(error)) from error
    raise argparse.ArgumentTypeError(f"{text}: must be as in manylinux_2_28_x86_64,3.12,cuda")


def _read_plan(arguments: argparse.Namespace) -> Plan:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    images = [] if arguments.without_image else arguments.image or ["cpu"]
    return Plan(
        bundles=arguments.bundle or [read_target(this_platform(), python, "cpu")],
        images=images,
        builder=[find_builder()] if images else [],
        image_options=arguments.image_option,
        signing_key=arguments.sign,
        accepted=arguments.accept,
    )


if __name__ == "__main__":
    main()
