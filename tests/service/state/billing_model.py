"""The rules of ledger, jobs and idempotency keys, without a database: what must be true."""

from dataclasses import dataclass, field
from typing import Literal

from upscaled.state.job_steps import MAX_ATTEMPTS

Charge = Literal["held", "captured", "released", "refunded"]
JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
OPEN: tuple[JobState, ...] = ("queued", "running")


@dataclass
class Name:
    """An idempotency key of a request: the process that has it, and if its answer is known."""

    request_id: str
    leased_by: str | None
    is_answered: bool = False

    @property
    def is_leased(self) -> bool:
        return self.leased_by is not None


@dataclass
class Job:
    """A job; `lease` is of the claim that may end it, `is_left` that the lease is over."""

    state: JobState = "queued"
    lease: str = ""
    is_left: bool = False
    attempts: int = 0
    ended_by: str = ""

    @property
    def is_open(self) -> bool:
        return self.state in OPEN

    @property
    def is_given_up(self) -> bool:
        return self.state == "running" and self.is_left and self.attempts >= MAX_ATTEMPTS

    @property
    def is_claimable(self) -> bool:
        is_free = self.state == "queued" or (self.state == "running" and self.is_left)
        return is_free and self.attempts < MAX_ATTEMPTS


@dataclass
class Billing:
    """What one API key has: `charges` by the id of the request or the job, of one credit each."""

    granted: int
    charges: dict[str, Charge] = field(default_factory=dict)
    names: dict[str, Name] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    job_names: dict[str, str] = field(default_factory=dict)

    @property
    def balance(self) -> int:
        return self.granted - sum(each in ("held", "captured") for each in self.charges.values())

    # Requests: reserve, hold, capture, complete; or give back, abandon

    def is_running(self, name: str) -> bool:
        return name in self.names and self.names[name].is_leased

    def find_answered(self, name: str) -> str | None:
        """Return the request that answers a retry: a lost one that was charged counts."""
        known = self.names.get(name)
        if known is None:
            return None
        if self.charges.get(known.request_id) == "held":
            self.charges[known.request_id] = "released"
        known.is_answered = known.is_answered or self.charges.get(known.request_id) == "captured"
        return known.request_id if known.is_answered else None

    def reserve(self, name: str, request_id: str, process_id: str) -> None:
        self.names[name] = Name(request_id, process_id)

    def can_redo(self, name: str) -> bool:
        known = self.names.get(name)
        return known is not None and known.is_answered and not known.is_leased

    def complete(self, name: str, request_id: str) -> None:
        if self._is_of(name, request_id):
            self.names[name].is_answered, self.names[name].leased_by = True, None

    def abandon(self, name: str, request_id: str) -> None:
        if self._is_of(name, request_id):
            self.names[name].leased_by = None
            if self.charges.get(request_id) != "captured" and not self.names[name].is_answered:
                del self.names[name]

    def give_back(self, name: str | None, request_id: str) -> None:
        """Give back what was not delivered; what a retry was answered with is charged."""
        is_answered = self._is_of(name, request_id) and self.names[str(name)].is_answered
        if self.charges[request_id] == "held":
            self.charges[request_id] = "released"
        elif self.charges[request_id] == "captured" and not is_answered:
            self.charges[request_id] = "refunded"

    def lose_front_end(self, request_ids: list[str]) -> None:
        """Release what a crashed front end had on hold, and nothing that it captured."""
        for request_id in request_ids:
            if self.charges.get(request_id) == "held":
                self.charges[request_id] = "released"

    def end_leases(self, process_id: str) -> None:
        """End what a crashed process had under lease."""
        for name in self.names.values():
            if name.leased_by == process_id:
                name.leased_by = None
        for job in self.jobs.values():
            job.is_left = job.is_left or job.lease.startswith(process_id)

    def _is_of(self, name: str | None, request_id: str) -> bool:
        return name in self.names and self.names[str(name)].request_id == request_id

    # Jobs

    def find_submitted(self, name: str | None) -> str | None:
        """Return the job of a submission under `name`; None: a new one."""
        known = self.job_names.get(name or "")
        return known if known and self.jobs[known].state != "failed" else None

    def submit(self, name: str | None, job_id: str) -> None:
        self.jobs[job_id], self.charges[job_id] = Job(), "held"
        if name:
            self.job_names[name] = job_id

    def claim(self, job_id: str, lease: str) -> None:
        job = self.jobs[job_id]
        self.jobs[job_id] = Job("running", lease, attempts=job.attempts + 1)

    def put_back(self, job_id: str) -> None:
        self.jobs[job_id] = Job(attempts=self.jobs[job_id].attempts - 1)

    def is_ours(self, job_id: str, lease: str) -> bool:
        return self.jobs[job_id].state == "running" and self.jobs[job_id].lease == lease

    def end(self, job_id: str, state: JobState, lease: str = "") -> None:
        job = self.jobs[job_id]
        job.state, job.ended_by = state, lease
        self.charges[job_id] = "captured" if state == "succeeded" else "released"
