import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.doctor.conftest import MakeSettings
from tests.service.state.disks import small_disk
from upscaled.config import Settings
from upscaled.doctor.finding import Finding, Status
from upscaled.doctor.folders import check_folders
from upscaled.state.store import MIN_FREE_BYTES

MIB = 2**20


def checked(settings: Settings) -> dict[str, Finding]:
    return {finding.check: finding for finding in check_folders(settings)}


def test_a_folder_yet_to_be_made_is_fine_and_not_made(make_settings: MakeSettings) -> None:
    settings = make_settings()
    writing = checked(settings)["data folder"]
    assert writing.status is Status.OK
    assert "will be made at the first start" in writing.found
    assert not settings.data_dir.exists()


def test_nothing_is_left_in_a_folder_that_is_there(make_settings: MakeSettings) -> None:
    settings = make_settings()
    settings.results_dir.mkdir(parents=True)
    assert checked(settings)["data folder"].status is Status.OK
    assert [path for path in settings.data_dir.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("place", [".", "results"])
def test_a_file_in_place_of_a_folder_is_a_failure(place: str, make_settings: MakeSettings) -> None:
    settings = make_settings()
    blocked = settings.data_dir / place
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.write_text("")
    writing = checked(settings)["data folder"]
    assert writing.status is Status.FAILURE
    assert "is a file, not a folder" in writing.found


def test_a_folder_of_another_user_is_a_failure(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o500)
    program = (
        "import os, sys\n"
        "from upscaled.config import load_settings\n"
        "from upscaled.doctor.folders import check_folders\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "print(check_folders(load_settings({}, data_dir=sys.argv[1]))[0])"
    )
    for each in (tmp_path, *tmp_path.parents):
        if os.geteuid() == 0 and each.stat().st_uid == 0 and not each.stat().st_mode & 0o001:
            each.chmod(each.stat().st_mode | 0o011)
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True
    )
    assert "FAILURE" in done.stdout
    assert "Permission denied" in done.stdout


def test_a_full_disk_is_a_failure_and_a_small_one_too(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings()
    settings.data_dir.mkdir()
    with small_disk(settings.data_dir, 4 * MIB):
        found = checked(settings)
        assert found["data folder"].status is Status.OK
        assert found["disk"].status is Status.FAILURE
        assert f"below {MIN_FREE_BYTES // MIB} MiB the service is not ready" in found["disk"].found
        with pytest.raises(OSError, match="No space"):
            (settings.data_dir / "all").write_bytes(b"\0" * 5 * MIB)
        full = checked(settings)
        assert full["data folder"].status is Status.FAILURE
        assert "No space left on device" in full["data folder"].found


@pytest.mark.parametrize(
    ("spare_mib", "status"), [(-8, Status.FAILURE), (8, Status.WARNING), (1000, Status.OK)]
)
def test_free_space_is_reported_on_both_sides_of_its_limits(
    spare_mib: int, status: Status, make_settings: MakeSettings
) -> None:
    settings = make_settings()
    settings.data_dir.mkdir()
    with small_disk(settings.data_dir, MIN_FREE_BYTES + spare_mib * MIB):
        assert checked(settings)["disk"].status is status


def test_a_disk_without_free_files_is_a_failure(make_settings: MakeSettings) -> None:
    settings = make_settings()
    settings.data_dir.mkdir()
    with small_disk(settings.data_dir, 2000 * MIB):
        subprocess.run(["mount", "-o", "remount,nr_inodes=100", str(settings.data_dir)], check=True)
        disk = checked(settings)["disk"]
    assert disk.status is Status.FAILURE
    assert "more files" in disk.found
