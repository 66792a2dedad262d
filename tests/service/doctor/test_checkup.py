import threading
import time

from upscaled.config import load_settings
from upscaled.doctor.checkup import Check, list_checks, run_checks
from upscaled.doctor.finding import Finding, Status, ok, worst_of


def test_findings_keep_their_order_though_checks_run_at_once() -> None:
    both = threading.Barrier(2, timeout=60)

    def slow() -> list[Finding]:
        both.wait()
        time.sleep(0.1)
        return [ok("slow", "")]

    def fast() -> list[Finding]:
        both.wait()
        return [ok("fast", "")]

    findings = run_checks([Check("slow", slow), Check("fast", fast)])
    assert [finding.check for finding in findings] == ["slow", "fast"]


def test_a_check_that_hangs_is_a_failure_at_its_deadline() -> None:
    never = threading.Event()

    def hang() -> list[Finding]:
        never.wait(60)
        return []

    started = time.monotonic()
    findings = list(run_checks([Check("disk", hang, 0.2), Check("fast", lambda: [ok("fast", "")])]))
    assert time.monotonic() - started < 30
    never.set()
    assert [finding.status for finding in findings] == [Status.FAILURE, Status.OK]
    assert "took longer" in findings[0].found


def test_a_check_that_raises_is_a_finding_and_the_other_checks_run() -> None:
    def fail() -> list[Finding]:
        raise KeyError("x")

    (finding,) = run_checks([Check("disk", fail)])
    assert finding.status is Status.FAILURE
    assert "KeyError: 'x'" in finding.found


def test_the_overall_status_is_the_worst_of_all_findings() -> None:
    lines = [Finding("a", status, "") for status in (Status.OK, Status.FAILURE, Status.WARNING)]
    assert worst_of(lines) is Status.FAILURE
    assert worst_of([]) is Status.OK


def test_no_check_is_named_twice() -> None:
    checks = list_checks(
        load_settings({}), {}, host="127.0.0.1", port=1, is_expected=False, may_connect=False
    )
    names = [check.name for check in checks]
    assert len(set(names)) == len(names) == 12
