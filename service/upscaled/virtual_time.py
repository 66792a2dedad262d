"""Virtual clock of start-time fair queueing, one for the request queue and one for a device.

Goyal, Vin, Cheng: "Start-time fair queueing" (SIGCOMM 1996). Flows share a server. Each is charged
with the work that it was given, and the waiting flow that was charged least is served next. Two
flows that both wait throughout are never further apart than the work of one item of each.

A flow that begins to wait starts at the clock, so that it cannot save up service while it is idle
and owes nothing for the time before it came. Here the clock advances by each item's work divided
among the flows that wait: it says what a flow would be charged by now that had its share from the
start. It advances with every item, so flows that come without end cannot starve one that waits.
"""

from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Flow:
    """Flow that competes for the server; `charged` is in the unit of the work, e.g. pixels."""

    charged: float = 0.0


class VirtualClock:
    """Virtual clock of one server, in the unit of the work."""

    def __init__(self) -> None:
        self.time = 0.0

    def start_tag(self, flow: Flow) -> float:
        """Return the charge at which an idle flow would start if it began to wait now."""
        return max(flow.charged, self.time)

    def begin(self, flow: Flow) -> None:
        """Start to queue a flow that had nothing in the queue."""
        flow.charged = self.start_tag(flow)

    def charge(self, flow: Flow, work: float, waiting: int) -> None:
        """Charge a flow for an item that is served now.

        Args:
            work: what the item takes, above 0.
            waiting: flows that wait at this moment, this one included; at least 1.
        """
        self.time = max(self.time, flow.charged) + work / waiting
        flow.charged += work
