"""A real cluster on machines of its own keeps the contract, and loses nothing where parts fail.

Each test prints what clients saw (`pytest -rP`). All share one cluster, and leave it whole. They
run with `--chaos`, as root; the page `machines.md` has the figures of such a run. On a busy machine
the counts hold, and all takes longer.
"""

import time
from collections.abc import Callable, Mapping

import cv2
import numpy as np
import requests

from tests.cluster.bed import FRONT_ENDS, KEY, NODES, Bed
from tests.cluster.clients import CLIENTS, Record, check, clients_sending, count_holds
from tests.cluster.machines import wait_until

Expected = Mapping[tuple[int, int], str]

SOME = 3 * CLIENTS
"""Results that clients wait for where all is as before."""

HEAD_HANGS_S = 40
HEAD_AWAY_S = 100
CUT_S = 30
DOWN_S = 30

LONGEST_GAP_S = 7.0
"""What clients may wait while something fails; where nothing can work meanwhile, after that."""

CONTROLLER_GAP_S = 16.0
"""The same, where Serve's controller is a new one."""

LOOKED_FOR_S = 5.0
"""A front end looks for the controller every 2 s."""

GIVEN_BACK_S = 200.0
"""The page says three minutes."""

STOPPED_WITHIN_S = 40.0
"""As the unit of the page allows."""

LARGEST_SIDE_PX = 2880


def fail_under_load(bed: Bed, what: str, do: Callable[[Record], None]) -> Record:
    """Have one thing fail under load, and wait until all is as before."""
    with clients_sending(bed) as record:
        do(record)
        bed.wait_whole()
        record.wait_for(SOME)
    print(record.describe(what))
    return record


def check_nothing_lost(
    bed: Bed, record: Record, expected: Expected, gap_s: float = LONGEST_GAP_S
) -> None:
    check(record, expected)
    assert count_holds(bed) == 0
    assert record.longest_gap_s() <= gap_s


def check_only_refused(bed: Bed, record: Record, expected: Expected) -> None:
    """Check that all was answered, some of it 500, and that each client then had its result."""
    refused = record.lost()
    assert {(each.status, each.error_code) for each in refused} <= {(500, "internal_error")}
    assert record.given_up == 0
    check(record, expected, lost=len(refused))
    assert count_holds(bed) == 0
    assert record.longest_gap_s() <= LONGEST_GAP_S


def wait_under_load(record: Record, seconds: float) -> None:
    """Wait while clients send; they need not have an answer meanwhile."""
    assert not record.is_over.wait(seconds)


def test_each_node_has_one_replica_with_one_worker(bed: Bed) -> None:
    for name in NODES:
        assert len(bed[name].find("ServeReplica")) == 1
        assert len(bed[name].find("upscaled.worker.main")) == 1


def test_no_request_fails_and_no_credit_is_lost_where_a_worker_is_killed(
    bed: Bed, expected: Expected
) -> None:
    def kill(record: Record) -> None:
        bed.workers()[0].kill()
        record.wait_for(SOME)

    check_nothing_lost(bed, fail_under_load(bed, "worker killed", kill), expected)


def test_no_request_fails_and_no_credit_is_lost_where_a_replica_is_killed(
    bed: Bed, expected: Expected
) -> None:
    def kill(record: Record) -> None:
        old = bed.replicas()[:1]
        old[0].kill()
        record.wait_for(SOME)
        bed.wait_replaced(old)

    check_nothing_lost(bed, fail_under_load(bed, "replica killed", kill), expected)


def test_a_killed_node_loses_no_image_and_rejoins(bed: Bed, expected: Expected) -> None:
    def kill(record: Record) -> None:
        old = bed.replicas_on("a")
        (raylet,) = bed["a"].find("raylet/raylet")
        raylet.kill()
        record.wait_for(SOME)
        bed.wait_replaced(old)

    check_nothing_lost(bed, fail_under_load(bed, "node killed", kill), expected)


def test_a_node_that_is_cut_off_loses_no_image_and_rejoins(bed: Bed, expected: Expected) -> None:
    def cut(record: Record) -> None:
        bed["b"].cut()
        wait_under_load(record, CUT_S)
        bed["b"].heal()

    check_nothing_lost(bed, fail_under_load(bed, f"node cut off for {CUT_S} s", cut), expected)


def test_no_request_fails_and_no_credit_is_lost_while_the_head_hangs(
    bed: Bed, expected: Expected
) -> None:
    def hang(record: Record) -> None:
        (gcs,) = bed["head"].find("gcs_server")
        gcs.suspend()
        wait_under_load(record, HEAD_HANGS_S)
        gcs.resume()

    check_nothing_lost(
        bed, fail_under_load(bed, f"GCS stopped for {HEAD_HANGS_S} s", hang), expected
    )


def test_a_stopped_head_loses_no_image_and_rejoins(bed: Bed, expected: Expected) -> None:
    def turn_off(record: Record) -> None:
        bed["head"].power_off()
        wait_under_load(record, HEAD_AWAY_S)
        bed["head"].boot()
        bed.start_ray("head")
        wait_until(lambda: bed["head"].find("ServeController"), "the controller is back")

    record = fail_under_load(bed, f"head off for {HEAD_AWAY_S} s", turn_off)
    check_nothing_lost(bed, record, expected, CONTROLLER_GAP_S)
    found = bed.findings()
    assert (found["nodes"], found["deployment"]) == ("5 of 5 answer", "HEALTHY")


def test_a_killed_front_end_fails_only_its_requests_under_way_and_their_holds_are_released(
    bed: Bed, expected: Expected
) -> None:
    def kill(record: Record) -> None:
        bed.front_end("f1").kill()
        record.wait_for(SOME)

    record = fail_under_load(bed, "front end killed", kill)
    lost = record.lost()
    assert {(each.front_end, each.status) for each in lost} <= {("f1", 0)}
    assert len(lost) <= CLIENTS // 2
    assert len(record.delivered()) <= record.captured <= len(record.delivered()) + len(lost)
    check(record, expected, lost=len(lost), captured=record.captured)
    wait_until(lambda: count_holds(bed) == 0, "no credit is on hold", GIVEN_BACK_S)


def test_a_front_end_stops_in_time_while_the_head_hangs(bed: Bed) -> None:
    (gcs,) = bed["head"].find("gcs_server")
    gcs.suspend()
    try:
        time.sleep(LOOKED_FOR_S)  # by then it waits for the head to name the controller
        began_at_s = time.monotonic()
        status = bed.stop_front_end("f1", STOPPED_WITHIN_S)
        print(f"front end stopped without its head: {time.monotonic() - began_at_s:.1f} s")
    finally:
        gcs.resume()
        bed.start_front_end("f1")
    assert status == 0


def test_no_request_fails_while_front_ends_and_nodes_are_drained_one_after_the_other(
    bed: Bed, expected: Expected
) -> None:
    """As the page has a balancer do it: first new requests go elsewhere, then the unit stops."""

    def drain(record: Record) -> None:
        for name in FRONT_ENDS:
            record.front_ends.remove(name)
            assert bed.stop_front_end(name, STOPPED_WITHIN_S) == 0
            bed.start_front_end(name)
            bed.wait_healthy()
            record.front_ends.append(name)
            record.wait_for(SOME)
        for name in NODES:
            old = bed.replicas_on(name)
            bed.restart_ray(name)
            bed.wait_replaced(old)
            record.wait_for(SOME)

    check_nothing_lost(
        bed, fail_under_load(bed, "front ends and nodes restarted in turn", drain), expected
    )


def test_the_largest_picture_is_upscaled(bed: Bed) -> None:
    source = misty(LARGEST_SIDE_PX)
    for front_end in FRONT_ENDS:
        began_at_s = time.monotonic()
        answer = requests.post(
            f"{bed.url(front_end)}/v1/upscale",
            headers={"X-API-KEY": KEY, "Accept": "image/png"},
            files={"image": source},
            data={"scale": "2"},
            timeout=300,
        )
        print(
            f"largest: {len(source) / 1e6:.1f} MB in, {len(answer.content) / 1e6:.1f} MB out, "
            f"{answer.status_code} after {time.monotonic() - began_at_s:.1f} s"
        )
        assert answer.status_code == 200, answer.text
        assert answer.headers["Content-Type"] == "image/png"
        assert len(answer.content) > 3 * len(source)


def misty(side_px: int) -> bytes:
    """A PNG of one colour in 16 bits, whose opacity is noise.

    It is nearly as large as a file may be, its result larger by the square of the scale, and no
    network has to compute it, which in float32 would take a core minutes.
    """
    pixels = np.full((side_px, side_px, 4), 20_000, np.uint16)
    pixels[..., 3] = np.random.default_rng(3).integers(0, 2**16, (side_px, side_px), np.uint16)
    done, png = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    return png.tobytes()


def test_no_request_and_no_credit_is_lost_while_the_database_is_unreachable(
    bed: Bed, expected: Expected
) -> None:
    def stop(record: Record) -> None:
        bed.kill_database()
        wait_under_load(record, DOWN_S)
        bed.start_database()
        record.note_return()

    record = fail_under_load(bed, f"PostgreSQL down for {DOWN_S} s", stop)
    assert record.lost()
    check_only_refused(bed, record, expected)


def test_no_request_credit_or_picture_is_lost_while_the_bucket_is_unreachable(
    bed: Bed, expected: Expected
) -> None:
    def stop(record: Record) -> None:
        bed["store"].cut()
        wait_under_load(record, DOWN_S)
        bed["store"].heal()
        record.note_return()

    record = fail_under_load(bed, f"bucket down for {DOWN_S} s", stop)
    assert {each.accept for each in record.lost()} == {"application/json"}
    check_only_refused(bed, record, expected)


def test_no_request_fails_while_the_count_of_replicas_changes(bed: Bed, expected: Expected) -> None:
    def scale(record: Record) -> None:
        bed.deploy(1)
        bed.wait_healthy(1)
        record.wait_for(SOME)
        bed.deploy(2)

    check_nothing_lost(bed, fail_under_load(bed, "2 to 1 to 2 replicas", scale), expected)


def test_no_request_fails_during_a_new_release_where_old_and_new_replicas_fit(
    bed: Bed, expected: Expected
) -> None:
    """Replicas of half a CPU leave room on their nodes: new ones start before old ones stop."""
    full = bed.replicas()
    bed.deploy(ray_actor_options=half_a_cpu(1))
    bed.wait_replaced(full)
    bed.wait_healthy()
    old = bed.replicas()

    def release(_: Record) -> None:
        bed.deploy(max_surge_percent=100, ray_actor_options=half_a_cpu(2))
        bed.wait_replaced(old)

    try:
        check_nothing_lost(bed, fail_under_load(bed, "new release, with surge", release), expected)
    finally:
        old = bed.replicas()
        bed.deploy()
        bed.wait_replaced(old)


def half_a_cpu(release: int) -> dict[str, object]:
    """Return the options of replicas whose environment names a release."""
    return {"num_cpus": 0.5, "num_gpus": 0, "runtime_env": {"env_vars": {"RELEASE": str(release)}}}
