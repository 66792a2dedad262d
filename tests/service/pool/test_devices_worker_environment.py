import os

from upscaled.config import Settings, load_settings
from upscaled.pool.devices import worker_environment, worker_settings


def test_a_worker_inherits_no_secret() -> None:
    outside = {
        "PATH": "/bin",
        "UPSCALED_DATABASE_URL": "postgresql://u:secret@db/x",
        "AWS_SECRET_ACCESS_KEY": "s",
        "CUDA_VISIBLE_DEVICES": "1",
        "GLIBC_TUNABLES": "glibc.rtld.optional_static_tls=4096",
    }
    inside = worker_environment(load_settings({}, threads=3), outside)
    assert inside == {
        "PATH": "/bin",
        "CUDA_VISIBLE_DEVICES": "1",
        "GLIBC_TUNABLES": "glibc.rtld.optional_static_tls=4096",
        "OMP_NUM_THREADS": "3",
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def test_waiting_threads_sleep_unless_the_operator_lets_them_spin() -> None:
    settings = load_settings({})
    assert worker_environment(settings, {})["OMP_WAIT_POLICY"] == "PASSIVE"
    outside = {"OMP_WAIT_POLICY": "ACTIVE"}
    assert worker_environment(settings, outside)["OMP_WAIT_POLICY"] == "ACTIVE"


def test_cores_are_shared_out_among_the_workers() -> None:
    cores = len(os.sched_getaffinity(0))
    assert worker_environment(load_settings({}), {})["OMP_NUM_THREADS"] == str(cores)
    crowd = worker_environment(load_settings({}, workers=64), {})
    assert crowd["OMP_NUM_THREADS"] == str(max(1, cores // 64))


def test_the_setting_wins_over_the_operators_variable_which_wins_over_sharing() -> None:
    outside = {"OMP_NUM_THREADS": "7"}
    assert worker_environment(load_settings({}), outside)["OMP_NUM_THREADS"] == "7"
    assert worker_environment(load_settings({}, threads=2), outside)["OMP_NUM_THREADS"] == "2"


def test_the_settings_that_cross_make_settings_again_without_the_database() -> None:
    settings = load_settings(
        {}, database_url="postgresql://u:secret@db/x", jpeg_quality=80, data_dir="/data"
    )
    crossed = Settings.model_validate(worker_settings(settings))
    assert crossed.database_url == ""
    assert crossed.jpeg_quality == 80
    assert crossed.data_dir == settings.data_dir
