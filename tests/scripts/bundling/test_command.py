from pathlib import Path

import pytest

from scripts.bundling import assembling
from scripts.bundling.command import main
from scripts.bundling.target import CannotBundle, Target
from upscaled_models.registry import official_models


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--platform", "win_amd64"], "--platform win_amd64: must name a C library"),
        (["--python", "3.9"], "--python 3.9: must be 3.11 or newer"),
    ],
)
def test_a_target_without_builds_is_refused_with_the_reason(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match=f"scripts/bundle: {said}"):
        main([*arguments, "--output", str(tmp_path)])


def test_a_damaged_model_stops_it_before_anything_is_downloaded(tmp_path: Path) -> None:
    models_dir, output = tmp_path / "models", tmp_path / "dist"
    models_dir.mkdir()
    (models_dir / official_models()[0].file_name).write_bytes(b"half")
    with pytest.raises(
        SystemExit, match=f"scripts/bundle: model {official_models()[0].name}: wrong size"
    ):
        main(["--models-dir", str(models_dir), "--output", str(output)])
    assert not output.exists()


def test_the_extra_dev_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--extra", "dev"])
    assert "heic" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "extras"),
    [
        ([], ["realesrgan"]),
        (["--without-weights"], []),
        (["--extra", "heic"], ["heic", "realesrgan"]),
        (["--extra", "realesrgan"], ["realesrgan"]),
    ],
)
def test_the_official_weights_are_bundled_unless_they_are_declined(
    arguments: list[str], extras: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def gather(_target: Target, given: list[str], _folder: Path) -> None:
        asked.append(given)
        raise CannotBundle("enough seen")

    monkeypatch.setattr(assembling, "gather", gather)
    with pytest.raises(SystemExit, match="enough seen"):
        main([*arguments, "--models-dir", str(tmp_path), "--output", str(tmp_path / "dist")])
    assert asked == [extras]
