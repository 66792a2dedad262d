"""Distilling: a student follows its targets, and a run continues where it stopped, bit for bit."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import pytest
import torch

from scripts.training import checkpoint, distil, stretch
from scripts.training.command import main
from scripts.training.degradation import Harm
from scripts.training.discriminator import Discriminator
from scripts.training.distil import DistilRecipe, DistilRun
from scripts.training.export import store_weights
from scripts.training.losses import sharpen, shift_error, shift_source, texture_distance
from scripts.training.targets import Batch, Target, Targets, read_targets
from scripts.training.teacher import align_colours, make_targets
from upscaled_models.networks.compact import SRVGGNetCompact
from upscaled_models.networks.plain import PlainNet
from upscaled_models.quantise.features import VARIANTS, FeatureNetwork, feature_error
from upscaled_models.quantise.installed import MissingPackage, read_packaged
from upscaled_models.quantise.tracks import Pixels, decode, make_clean
from upscaled_models.weights import recognise_file

TINY = DistilRecipe(
    steps=4, batch=1, patch_px=12, pages=1, warmup_steps=2, rate=1e-3, page_share=0.3
)


@pytest.fixture(scope="module", autouse=True)
def _feature_weights() -> None:
    try:
        read_packaged(VARIANTS["lite0"].weights)
    except MissingPackage as error:
        pytest.skip(str(error))


def enlarge(file: bytes) -> Pixels:
    return np.ascontiguousarray(decode(file).repeat(4, 0).repeat(4, 1))


@pytest.fixture
def targets(tmp_path: Path) -> Path:
    from PIL import Image

    photos, folder = tmp_path / "photos", tmp_path / "targets"
    photos.mkdir()
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (50, 50, 3), dtype=np.uint8)
    Image.fromarray(coarse.repeat(8, 0).repeat(8, 1)).save(photos / "photo.png")
    assert len(list(make_targets(photos, folder, 3, seed=5, teacher=enlarge))) == 3
    return folder


def fresh(recipe: DistilRecipe = TINY) -> DistilRun:
    torch.manual_seed(2)
    return distil.begin(recipe, SRVGGNetCompact(num_feat=8, num_conv=1, upscale=4))


def test_targets_are_the_teachers_and_are_made_once(tmp_path: Path, targets: Path) -> None:
    read = read_targets(targets, scale=4, pages=1, seed=1)
    assert {target.harm for target in read.photos} == set(Harm)
    for target in read.photos:
        plain = np.ascontiguousarray(target.small.repeat(4, 0).repeat(4, 1))
        expected = align_colours(plain, target.small) if target.harm == Harm.NONE else plain
        assert np.array_equal(target.large, expected)
        assert target.truth.shape == target.large.shape
    again = make_targets(tmp_path / "photos", targets, 4, seed=5, teacher=enlarge)
    assert [path.name for path in again] == ["00003.npz"]


def draw(harm: Harm, truth_share: float) -> Batch:
    """Draw patches whose target is the source doubled twice, and whose truth is its negative."""
    small = np.random.default_rng(3).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    large = np.ascontiguousarray(small.repeat(4, 0).repeat(4, 1))
    targets = Targets((Target(small, large, 255 - large, harm),), (), 4)
    rng = np.random.default_rng(0)
    return targets.draw_batch(rng, count=8, patch_px=16, page_share=0, truth_share=truth_share)


def test_a_patch_its_target_and_its_truth_show_the_same_place() -> None:
    batch = draw(Harm.NONE, truth_share=0)
    assert batch.small.shape == (8, 3, 16, 16)
    enlarged = batch.small.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.equal(enlarged, batch.target)
    assert torch.allclose(1 - enlarged, batch.reference, atol=1e-6)


@pytest.mark.parametrize(("truth_share", "true"), [(0.0, 0), (0.5, 4), (1.0, 8)])
def test_a_share_of_the_harmed_patches_has_the_truth_as_reference(
    truth_share: float, true: int
) -> None:
    batch = draw(Harm.NOISY, truth_share)
    is_true = [not torch.equal(*pair) for pair in zip(batch.reference, batch.target, strict=True)]
    assert abs(sum(is_true) - true) <= (3 if 0 < truth_share < 1 else 0)


def test_alignment_restores_the_sources_colours_and_keeps_the_texture() -> None:
    rng = np.random.default_rng(4)
    small = rng.integers(60, 190, (24, 24, 3), dtype=np.uint8)
    noise = rng.integers(-20, 21, (96, 96, 3))
    warm = small.repeat(4, 0).repeat(4, 1) + noise + np.array([12, 0, -9])
    teachers = np.clip(warm, 0, 255).astype(np.uint8)
    aligned = align_colours(teachers, small)
    before, after = (
        np.abs(make_clean(each, 4).astype(int) - small).mean() for each in (teachers, aligned)
    )
    assert after < before / 2
    fine = [
        each - cv2.GaussianBlur(each.astype(np.float32), (0, 0), 1)
        for each in (aligned, warm.astype(np.float32))
    ]
    assert np.corrcoef(fine[0].ravel(), fine[1].ravel())[0, 1] > 0.95


def test_a_target_that_was_written_in_part_is_not_read(
    tmp_path: Path, targets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_half(file: IO[bytes], **_: Pixels) -> None:
        file.write(b"half of one")
        raise OSError("the disk is full")

    monkeypatch.setattr(np, "savez", write_half)
    with pytest.raises(OSError, match="full"):
        list(make_targets(tmp_path / "photos", targets, 4, seed=5, teacher=enlarge))
    assert len(read_targets(targets, scale=4, pages=0, seed=1).photos) == 3


def test_sigterm_ends_a_run_saved(
    tmp_path: Path, targets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_step = distil.take_step

    def take_step_and_ask_to_stop(run: DistilRun, *given: Any, **named: Any) -> dict[str, float]:
        figures = take_step(run, *given, **named)
        if run.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return figures

    monkeypatch.setattr(distil, "take_step", take_step_and_ask_to_stop)
    distil.train(fresh(), targets, tmp_path / "run", half=False)
    state = checkpoint.read(tmp_path / "run")
    assert state is not None
    assert state["step"] == 2


def test_a_students_file_is_a_model_that_is_recognised(tmp_path: Path, targets: Path) -> None:
    distil.train(fresh(), targets, tmp_path / "run", half=False, until=1)
    main(["student", "--out", str(tmp_path / "run"), "--to", str(tmp_path / "s.safetensors")])
    family, shape = recognise_file(tmp_path / "s.safetensors")
    assert (family, shape["num_feat"], shape["num_conv"], shape["upscale"]) == ("srvgg", 8, 1, 4)
    with pytest.raises(FileNotFoundError, match="checkpoint"):
        main(["student", "--out", str(targets), "--to", str(tmp_path / "none.safetensors")])


def test_a_folded_student_learns_photos_and_the_targets_made_small(
    tmp_path: Path, targets: Path
) -> None:
    read = read_targets(targets, scale=2, pages=0, seed=1)
    full = read_targets(targets, scale=4, pages=0, seed=1)
    for target, other in zip(read.photos, full.photos, strict=True):
        assert target.large.shape[0] == target.truth.shape[0] == 2 * target.small.shape[0]
        assert np.array_equal(target.large, make_clean(other.large, 2))
        assert np.array_equal(target.truth, make_clean(other.truth, 2))
    student, run = tmp_path / "student.safetensors", tmp_path / "run"
    store_weights(PlainNet(4, 0, 2, fold=2).state_dict(), student)
    settings = ("steps=1", "batch=1", "patch_px=24", "pages=0", "page_share=0")
    given = [part for value in settings for part in ("--set", value)]
    start = ("distil", "--targets", targets, "--out", run, "--from", student, "--threads", "1")
    photos = ("--photos", tmp_path / "photos", "--set", "photo_share=0.5")
    main([*map(str, (*start, *photos)), *given])
    main(["student", "--out", str(run), "--to", str(tmp_path / "s.safetensors")])
    family, shape = recognise_file(tmp_path / "s.safetensors")
    assert (family, shape["scale"], shape["fold"]) == ("plain", 2, 2)
    assert json.loads((run / "log.jsonl").read_text().splitlines()[0])["scale"] == 2


@pytest.mark.slow
def test_a_folded_student_learns_to_draw_the_same_wherever_its_squares_lie(
    tmp_path: Path, targets: Path
) -> None:
    def train(shift_weight: float) -> float:
        torch.manual_seed(2)
        student = PlainNet(8, 1, 2, fold=2)
        torch.nn.init.normal_(student.tail.weight, std=0.1)
        recipe = replace(
            TINY, scale=2, batch=2, patch_px=26, page_share=0.0, rate=0.2, ema_decay=0.0
        )
        recipe = replace(recipe, steps=8, discriminator_share=0.0, shift_weight=shift_weight)
        run = distil.begin(recipe, student)
        distil.train(run, targets, tmp_path / f"run-{shift_weight}", half=False)
        source = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(1))
        source = source.repeat_interleave(8, 2).repeat_interleave(8, 3)
        with torch.no_grad():
            results = [run.network(each) for each in (source, shift_source(source, 0, 1))]
        return float(shift_error(results[0], results[1], 0, 2))

    assert train(50.0) < 0.85 * train(0.0)


def test_photos_are_sharpened_by_their_harm_and_drawn_pages_are_not() -> None:
    small = torch.rand(3, 3, 8, 8)
    large, truth = torch.rand(2, 3, 3, 32, 32) * 0.5 + 0.25
    batch = Batch(
        small, large, truth, torch.tensor([True, False, True]), torch.tensor([False, False, True])
    )
    recipe = replace(TINY, harmed_sharpen_amount=0.2, unharmed_sharpen_amount=0.1)
    sharpened = distil._sharpen(batch, recipe)
    amounts = torch.tensor([0.2, 0.1, 0.0])
    assert torch.equal(sharpened.small, small)
    assert torch.equal(sharpened.target, sharpen(large, amounts))
    assert torch.equal(sharpened.reference, sharpen(truth, amounts))
    assert torch.allclose(sharpened.target[2], large[2])


def test_photos_are_their_own_targets(tmp_path: Path, targets: Path) -> None:
    recipe = replace(TINY, photo_share=1.0, page_share=0.0)
    with pytest.raises(ValueError, match="needs --photos"):
        distil.train(fresh(recipe), targets, tmp_path / "run", half=False, until=1)
    run = fresh(recipe)
    distil.train(run, targets, tmp_path / "run", half=False, until=1, photos=tmp_path / "photos")
    assert run.step == 1
    photo = np.random.default_rng(3).integers(0, 256, (80, 90, 3), dtype=np.uint8)
    drawn = Targets((), (), 2, (photo,)).draw_batch(
        np.random.default_rng(0),
        count=9,
        patch_px=16,
        page_share=0,
        truth_share=0,
        photo_share=1,
        unharmed_share=0.5,
    )
    assert 0 < int(drawn.is_harmed.sum()) < 9
    assert torch.equal(drawn.target, drawn.reference)
    for small, target, is_harmed in zip(drawn.small, drawn.target, drawn.is_harmed, strict=True):
        shrunk = torch.nn.functional.avg_pool2d(target, 2)
        assert is_harmed or float((shrunk - small).abs().mean()) < 0.1


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_recipe_sets_the_share_of_unharmed_photos(share: float) -> None:
    photo = np.random.default_rng(3).integers(0, 256, (120, 120, 3), dtype=np.uint8)
    recipe = replace(TINY, batch=9, photo_share=1.0, page_share=0.0, unharmed_share=share)
    batch = stretch.draw_batch(Targets((), (), 4, (photo,)), recipe, 0)
    assert batch.is_harmed.tolist() == [share == 0] * 9


def test_the_teacher_of_a_run_with_photos_teaches_harmed_pictures_alone(
    tmp_path: Path, targets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Targets] = []
    draw_batch = Targets.draw_batch

    def watch(self: Targets, *given: Any, **named: Any) -> Batch:
        seen.append(self)
        return draw_batch(self, *given, **named)

    monkeypatch.setattr(Targets, "draw_batch", watch)
    run = fresh(replace(TINY, photo_share=0.5))
    distil.train(run, targets, tmp_path / "run", half=False, until=1, photos=tmp_path / "photos")
    assert {target.harm for target in seen[0].photos} == {Harm.COMPRESSED, Harm.NOISY}


def test_the_discriminator_can_be_kept_from_unharmed_pictures() -> None:
    """Next to its gradient the others are small here."""
    weights = ("colour", "contrast", "fidelity", "flicker", "texture", "feature")
    only = {f"{name}_weight": 0.0 for name in weights} | {"fidelity_weight": 1e-3}
    moved = []
    for share in (0.0, 1.0):
        settings = {"warmup_steps": 1, "discriminator_share": 1e6}
        given = {**vars(TINY), **only, **settings, "unharmed_discriminator_share": share}
        run = fresh(DistilRecipe(**given))
        run.step = 3
        pixels = torch.rand(1, 3, 12, 12)
        batch = Batch(
            pixels, torch.rand(1, 3, 48, 48), torch.rand(1, 3, 48, 48), *torch.zeros(2, 1).bool()
        )
        output = run.network(pixels).detach()
        gradient, _ = distil._gradient_at(
            run, output, batch, FeatureNetwork("lite0"), distil.ShiftedSources(0, 0, 0, 4)
        )
        moved.append(float(gradient.norm()))
    assert moved[1] > 100 * moved[0] > 0


def test_a_shifted_picture_has_no_gradient_of_the_discriminator() -> None:
    small, (target, reference) = torch.rand(2, 3, 12, 12), torch.rand(2, 2, 3, 48, 48)
    batch = Batch(small, target, reference, *torch.ones(2, 2).bool())
    shifted, output = distil.ShiftedSources(1, 0, 1, 4), torch.rand(3, 3, 48, 48)
    of_shifted = []
    for share in (0.0, 1.0):
        settings = {"warmup_steps": 1, "discriminator_share": share, "shift_weight": 1.0}
        run = fresh(DistilRecipe(**{**vars(TINY), **settings}))
        run.step = 3
        gradient, _ = distil._gradient_at(
            run, output.clone(), batch, FeatureNetwork("lite0"), shifted
        )
        of_shifted.append(gradient[2])
    assert float(of_shifted[0].abs().sum()) > 0
    assert torch.equal(*of_shifted)


def test_a_folder_without_targets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no target"):
        read_targets(tmp_path, scale=4, pages=0, seed=1)


@pytest.mark.slow
def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path, targets: Path) -> None:
    unbroken, broken = fresh(), fresh()
    distil.train(unbroken, targets, tmp_path / "a", half=False)
    distil.train(broken, targets, tmp_path / "b", half=False, until=2)
    assert broken.step == 2
    resumed = fresh()
    stretch.resume(resumed, tmp_path / "b")
    distil.train(resumed, targets, tmp_path / "b", half=False)
    for name in ("network", "average", "discriminator"):
        pair = zip(
            unbroken.parts()[name].parameters(), resumed.parts()[name].parameters(), strict=True
        )
        assert all(torch.equal(one, other) for one, other in pair), name
    begins = [json.loads(line) for line in (tmp_path / "b/log.jsonl").read_text().splitlines()]
    assert [line["begins_at"] for line in begins] == [0, 2]


@pytest.mark.slow
def test_a_resumed_run_uses_its_own_recipe(tmp_path: Path, targets: Path) -> None:
    student, run = tmp_path / "student.safetensors", tmp_path / "run"
    store_weights(fresh().network.state_dict(), student)
    start = [*map(str, ("distil", "--targets", targets, "--out", run, "--from", student))]
    settings = ("batch=1", "patch_px=12", "pages=1", "rate=0.001")
    main([*start, *(part for each in settings for part in ("--set", each)), "--until", "1"])
    main([*start, "--set", "rate=0.002", "--until", "1"])
    begins = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["begins_at"] for line in begins] == [0, 1]
    assert [line["rate"] for line in begins] == [0.001, 0.002]
    assert begins[0] | {"begins_at": 1, "rate": 0.002} == begins[1]


@pytest.mark.slow
def test_training_reduces_the_distance_of_a_student_to_its_targets(
    tmp_path: Path, targets: Path
) -> None:
    read = read_targets(targets, scale=4, pages=0, seed=1)
    rng = np.random.default_rng(1)
    batch = read.draw_batch(rng, count=4, patch_px=24, page_share=0, truth_share=0)
    run = fresh(replace(TINY, steps=12, rate=2e-2, pages=0, page_share=0.0))
    with torch.no_grad():
        before = (run.network(batch.small) - batch.target).abs().mean()
    distil.train(run, targets, tmp_path / "run", half=True)
    with torch.no_grad():
        assert (run.network(batch.small) - batch.target).abs().mean() < 0.98 * before


def test_displaced_texture_has_less_loss_than_other_texture() -> None:
    torch.manual_seed(0)
    noise = torch.rand(1, 3, 64, 64)
    moved, calm = noise.roll((8, 4), (2, 3)), noise * 0.2 + 0.4
    distances = []
    for other in (moved, calm):
        torch.manual_seed(1)
        distances.append(float(texture_distance(noise, other)))
    assert distances[0] < 0.2 * distances[1]


def test_the_discriminator_rates_each_position_of_each_stage_beside_the_source() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(FeatureNetwork("lite0"))
    of_picture, of_source = (
        discriminator.stages(torch.rand(1, 3, 66, 66)),
        discriminator.stages(torch.rand(1, 3, 66, 66)),
    )
    rated = discriminator(of_picture, of_source)
    assert [each.shape for each in rated] == [
        (1, 1, 32, 32),
        (1, 1, 32, 32),
        (1, 1, 16, 16),
        (1, 1, 8, 8),
    ]
    assert not torch.allclose(rated[0], discriminator(of_picture, of_picture)[0])


def test_the_discriminator_does_not_see_a_checkerboard() -> None:
    discriminator = Discriminator(FeatureNetwork("lite0"))
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(16, 16) * 0.1
    plain = torch.full((1, 3, 32, 32), 0.5)
    for one, other in zip(
        discriminator.stages(plain), discriminator.stages(plain + board), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-4)


def test_feature_error_has_finite_gradients_on_flat_and_equal_pictures() -> None:
    features = FeatureNetwork("lite0")
    for level in (0.0, 127.0):
        picture = torch.full((1, 3, 64, 64), level, requires_grad=True)
        wanted = features.stages(torch.full((1, 3, 64, 64), 130.0))
        feature_error(features.stages(picture), wanted).backward()  # type: ignore[no-untyped-call]
        assert picture.grad is not None
        assert torch.isfinite(picture.grad).all()
