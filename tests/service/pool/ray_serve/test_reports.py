from tests.service.pool.ray_serve.reports import MODEL, report
from upscaled.pool.ray_serve.reports import add_reports, find_difference, find_returning


def test_running_replicas_are_added_up_and_finished_work_of_lost_ones_still_counts() -> None:
    stats = add_reports((report("a"), report("b")), (report("c"),), {}, {})
    assert (stats.waiting, stats.running, stats.running_most, stats.workers_ready) == (2, 4, 8, 2)
    assert stats.done.models[MODEL].batches == 9
    assert stats.restarts == 3
    assert stats.resident_bytes == {0: 1000, 1: 1000}
    assert {engine.model for engine in stats.engines} == {MODEL}


def test_no_replica_gives_figures_of_nothing() -> None:
    assert add_reports((), (), {}, {}).workers_ready == 0


def test_a_difference_of_files_and_of_the_models_for_auto_is_found() -> None:
    assert find_difference([]) == find_difference([report("a"), report("b")]) == ""
    assert MODEL in find_difference([report("a"), report("b"), report("c", sha256="b" * 64)])
    assert "auto" in find_difference([report("a"), report("b", plan="upscaled-x4 ffff")])


def test_machines_of_other_speed_are_no_difference() -> None:
    assert find_difference([report("a"), report("b", most_px=100)]) == ""


def test_results_pass_through_the_front_end_unless_every_replica_stores_them() -> None:
    storing = report("a").model_copy(update={"results_url": "s3://b/results"})
    assert find_returning([report("a")], "") == find_returning([storing], "s3://b/results/") == ""
    assert "another UPSCALED_RESULTS_URL" in find_returning(
        [storing, report("b")], "s3://b/results"
    )
    at_other = storing.model_copy(update={"results_endpoint": "http://other:9000"})
    assert "another endpoint" in find_returning([storing, at_other], "s3://b/results")
    assert find_returning([at_other], "s3://b/results", "http://other:9000") == ""
    troubled = storing.model_copy(update={"results_trouble": "no credentials"})
    assert "no credentials" in find_returning([storing, troubled], "s3://b/results")
