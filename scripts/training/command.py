"""The command line of scripts/train."""

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch
from PIL import Image
from torch import nn

from scripts.evaluation.upscalers import open_network
from scripts.training import checkpoint, distil, eight_bits, stretch
from scripts.training.distil import DistilRecipe
from scripts.training.eight_bits import EightBitRecipe
from scripts.training.export import export, export_student, store_weights
from scripts.training.folding import fold_network
from scripts.training.loop import begin, resume, train
from scripts.training.pictures import load_pictures
from scripts.training.recipe import Recipe, override
from scripts.training.ship import ship_student
from scripts.training.stretch import AnyTargetRecipe
from scripts.training.targets import read_targets
from scripts.training.teacher import make_targets, open_teacher
from upscaled_models.networks.plain import PlainNet
from upscaled_models.quantise.drawing import draw_page
from upscaled_models.quantise.files import parse_layers, serialise_layers
from upscaled_models.quantise.prepare import to_inputs
from upscaled_models.registry import DEFAULT_DIR

GOLDEN: Final = Path(__file__).parents[1] / "sample" / "golden.py"


def main(arguments_given: list[str] | None = None) -> None:
    """Parse the command line and run or export."""
    arguments = _parser().parse_args(arguments_given)
    arguments.act(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/train", description=__doc__)
    commands = parser.add_subparsers(required=True)
    _add_runs(commands)
    _add_students(commands)
    draw = commands.add_parser("draw", help="write pages of text and line art, to measure on")
    draw.add_argument("--out", type=Path, required=True)
    draw.add_argument("--count", type=int, default=8)
    draw.add_argument("--seed", type=int, default=1000, help="training's own is the recipe's seed")
    draw.set_defaults(act=_draw)
    return parser


def _add_runs(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands of a network that is trained on photos."""
    run = commands.add_parser("run", help="start a run, or go on with the one in --out")
    run.add_argument("--photos", type=Path, required=True, help="folder of ground truth photos")
    run.add_argument("--out", type=Path, required=True, help="folder of the run's checkpoint")
    run.add_argument("--scale", type=int, choices=(2, 4), default=4)
    run.add_argument("--from", dest="start_from", help="a model, or its file, to start from")
    run.add_argument("--set", action="append", default=[], help="name=value of the recipe")
    run.add_argument("--until", type=int, help="stop, saved, at this step")
    run.add_argument("--models-dir", type=Path, default=Path(".upscaled/models"))
    run.add_argument("--threads", type=int, default=2)
    run.add_argument("--full", action="store_true", help="float32 in place of bfloat16")
    run.set_defaults(act=_run)
    store = commands.add_parser("export", help="store a run's average as a default model")
    store.add_argument("--out", type=Path, required=True, help="the run's folder")
    store.add_argument("--name", required=True, help="upscaled-x2 or upscaled-x4-faithful")
    store.add_argument("--folder", type=Path, default=Path("models/upscaled_models/default"))
    store.add_argument("--past", type=Path, help="a copy of --out from before its last stretch")
    store.add_argument(
        "--beyond", type=float, default=0.0, help="how much further than the way from --past"
    )
    store.set_defaults(act=_export)


def _add_students(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands of a network that is trained on what x4plus makes of photos."""
    teach = commands.add_parser("teach", help="make a student's targets, with x4plus tempered")
    teach.add_argument("--photos", type=Path, required=True, help="folder of photos")
    teach.add_argument("--targets", type=Path, required=True, help="folder of the targets")
    teach.add_argument("--count", type=int, default=1000)
    teach.add_argument("--seed", type=int, default=1)
    teach.add_argument("--models-dir", type=Path, default=Path(".upscaled/models"))
    teach.add_argument("--threads", type=int, default=2)
    teach.set_defaults(act=_teach)
    distil = commands.add_parser("distil", help="train a student on targets, or go on with it")
    distil.add_argument("--targets", type=Path, required=True, help="folder that `teach` writes")
    distil.add_argument("--out", type=Path, required=True, help="folder of the run's checkpoint")
    distil.add_argument("--from", dest="start_from", required=True, help="a model, or its file")
    distil.add_argument("--photos", type=Path, help="photos that are their own targets")
    distil.add_argument("--set", action="append", default=[], help="name=value of the recipe")
    distil.add_argument("--until", type=int, help="stop, saved, at this step")
    distil.add_argument("--models-dir", type=Path, default=Path(".upscaled/models"))
    distil.add_argument("--threads", type=int, default=2)
    distil.add_argument("--full", action="store_true", help="float32 in place of bfloat16")
    distil.set_defaults(act=_distil)
    student = commands.add_parser("student", help="store the average of a distilled run in a file")
    student.add_argument("--out", type=Path, required=True, help="the run's folder")
    student.add_argument("--to", type=Path, required=True, help="the .safetensors to write")
    student.set_defaults(act=_student)
    bits = commands.add_parser("eight-bits", help="tune a student in 8 bits, or go on with it")
    bits.add_argument("--targets", type=Path, required=True, help="folder that `teach` writes")
    bits.add_argument("--out", type=Path, required=True, help="folder of the run's checkpoint")
    bits.add_argument("--from", dest="start_from", required=True, help="a model, or its file")
    bits.add_argument("--start", type=Path, help="what --to of an earlier run wrote")
    bits.add_argument("--to", type=Path, help="write the layers to this .safetensors at the end")
    bits.add_argument("--set", action="append", default=[], help="name=value of the recipe")
    bits.add_argument("--until", type=int, help="stop, saved, at this step")
    bits.add_argument("--models-dir", type=Path, default=Path(".upscaled/models"))
    bits.add_argument("--threads", type=int, default=2)
    bits.set_defaults(act=_tune_in_eight_bits)
    fold = commands.add_parser("fold", help="make a folded x2 network of an x4 network, to train")
    fold.add_argument("--from", dest="start_from", required=True, help="a model, or its file")
    fold.add_argument("--to", type=Path, required=True, help="the .safetensors to write")
    fold.add_argument("--models-dir", type=Path, default=Path(".upscaled/models"))
    fold.set_defaults(act=_fold)
    ship = commands.add_parser(
        "ship", help="store a student as the default model, with 8 bits and golden pictures"
    )
    ship.add_argument("--student", type=Path, required=True, help="what `student` wrote")
    ship.add_argument("--name", default="upscaled-x4")
    ship.add_argument("--photos", type=Path, required=True, help="folder to calibrate 8 bits with")
    ship.add_argument("--steps", type=int, default=300, help="of tuning in 8 bits; 0: none")
    ship.add_argument("--tuned", type=Path, help="what `eight-bits` wrote, in place of tuning")
    ship.add_argument("--threads", type=int, default=2)
    ship.set_defaults(act=_ship)


def _run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    state = checkpoint.read(arguments.out)
    recipe = Recipe(arguments.scale) if state is None else checkpoint.stored_recipe(state, Recipe)
    recipe = override(recipe, arguments.set)
    if state is not None:
        run = resume(state, recipe)
    elif arguments.start_from:
        run = begin(recipe, open_network(arguments.start_from, arguments.models_dir)[0])
    else:
        run = begin(recipe)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (arguments.out / "log.jsonl").open("a") as log:
        log.write(json.dumps({"begins_at": run.step, **dataclasses.asdict(recipe)}) + "\n")
    least_px = (recipe.patch_px + 8) * recipe.scale
    cv2.setNumThreads(1)
    pictures = load_pictures(
        arguments.photos, drawn=recipe.pages, seed=recipe.seed, least_side_px=least_px
    )
    train(
        run,
        pictures,
        arguments.out,
        half=not arguments.full,
        until=arguments.until,
    )


def _teach(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    made = make_targets(
        arguments.photos,
        arguments.targets,
        arguments.count,
        seed=arguments.seed,
        teacher=open_teacher(arguments.models_dir),
    )
    for path in made:
        print(path)


def _open_student(
    arguments: argparse.Namespace, kind: type[AnyTargetRecipe]
) -> tuple[nn.Module, AnyTargetRecipe]:
    """Return the network of --from, and the recipe of --out's checkpoint, else a new one."""
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(1)
    student, native_scale = open_network(arguments.start_from, arguments.models_dir)
    state = checkpoint.read(arguments.out)
    recipe = kind(scale=native_scale) if state is None else checkpoint.stored_recipe(state, kind)
    return student, override(recipe, arguments.set)


def _distil(arguments: argparse.Namespace) -> None:
    student, recipe = _open_student(arguments, DistilRecipe)
    run = distil.begin(recipe, student)
    stretch.resume(run, arguments.out)
    distil.train(
        run,
        arguments.targets,
        arguments.out,
        half=not arguments.full,
        until=arguments.until,
        photos=arguments.photos,
    )


def _tune_in_eight_bits(arguments: argparse.Namespace) -> None:
    student, recipe = _open_student(arguments, EightBitRecipe)
    if arguments.start:
        layers = parse_layers(arguments.start.read_bytes(), arguments.start)
        start = eight_bits.simulate_layers(student, layers)
    else:
        targets = read_targets(arguments.targets, scale=recipe.scale, pages=0, seed=recipe.seed)
        patches = np.stack([each.small for each in targets.photos[: eight_bits.CALIBRATED]])
        torch.manual_seed(recipe.seed)
        start = eight_bits.simulate_untuned(student, to_inputs(patches), recipe.equalised_share)
    run = eight_bits.begin(recipe, student, start)
    stretch.resume(run, arguments.out)
    eight_bits.train(run, arguments.targets, arguments.out, until=arguments.until)
    if arguments.to:
        arguments.to.write_bytes(serialise_layers(eight_bits.layers_of(run)))


def _fold(arguments: argparse.Namespace) -> None:
    network, _ = open_network(arguments.start_from, arguments.models_dir)
    if not isinstance(network, PlainNet):
        raise SystemExit(f"{arguments.start_from} is no network like the shipped ones")
    store_weights(fold_network(network).state_dict(), arguments.to)


def _student(arguments: argparse.Namespace) -> None:
    export_student(arguments.out, arguments.to)


def _ship(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    ship_student(
        arguments.student,
        arguments.name,
        DEFAULT_DIR,
        arguments.photos,
        steps=arguments.steps,
        tuned=arguments.tuned,
        say=print,
    )
    subprocess.run([sys.executable, GOLDEN, arguments.name], check=True)


def _export(arguments: argparse.Namespace) -> None:
    entry = export(
        arguments.out,
        arguments.name,
        arguments.folder,
        past=arguments.past,
        beyond=arguments.beyond,
    )
    print(json.dumps({arguments.name: entry}))


def _draw(arguments: argparse.Namespace) -> None:
    arguments.out.mkdir(parents=True, exist_ok=True)
    for number in range(arguments.count):
        page = draw_page(np.random.default_rng([arguments.seed, number]))
        Image.fromarray(page).save(arguments.out / f"page{number}.png")
