"""Store the votes of a blind comparison in a JSON file, after each one."""

import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Vote:
    """The vote on one pair; `preferred` is an upscaler's label, or "" where none was better."""

    truth: str
    track: str
    left: str
    right: str
    preferred: str


@dataclass
class Tally:
    """Votes by the number of their pair; `plan` describes the comparison, so that files do not
    mix."""

    plan: dict[str, Any]
    path: Path
    votes: dict[int, Vote] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, plan: dict[str, Any]) -> "Tally":
        """Continue with the votes of `path`, or start with none.

        Raises:
            ValueError: the file holds no votes, or the votes of another comparison.
        """
        tally = cls(plan, path)
        if not path.exists():
            return tally
        try:
            stored = json.loads(path.read_text())
            votes = {int(number): Vote(**vote) for number, vote in stored["votes"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} holds no votes of scripts/evaluate --blind") from error
        if stored["plan"] != json.loads(json.dumps(plan)):
            raise ValueError(f"{path} holds the votes of another comparison: {stored['plan']}")
        tally.votes = votes
        return tally

    def add(self, number: int, vote: Vote) -> None:
        """Store a vote, in place of an earlier one on the same pair, and write the file."""
        self.votes[number] = vote
        document = {
            "plan": self.plan,
            "summary": self.summary(),
            "votes": {str(each): asdict(self.votes[each]) for each in sorted(self.votes)},
        }
        incoming = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        incoming.write_text(json.dumps(document, indent=1) + "\n")
        incoming.replace(self.path)

    def summary(self) -> dict[str, Any]:
        """Return wins of each upscaler, ties, the same by track, and how likely chance alone is."""
        tracks = sorted({vote.track for vote in self.votes.values()})
        return {
            **self._count(list(self.votes.values())),
            "by_track": {
                track: self._count([vote for vote in self.votes.values() if vote.track == track])
                for track in tracks
            },
        }

    def _count(self, votes: list[Vote]) -> dict[str, Any]:
        wins = {
            label: sum(vote.preferred == label for vote in votes)
            for label in self.plan["upscalers"]
        }
        first, second = wins.values()
        return {
            "wins": wins,
            "ties": len(votes) - first - second,
            "chance": round(sign_test(first, second), 4),
        }


def sign_test(first: int, second: int) -> float:
    """Return how likely fair coins would differ as much or more; 1 means no difference.

    The two-sided sign test; ties are left out.
    """
    total = first + second
    ways = sum(math.comb(total, wins) for wins in range(min(first, second) + 1))
    return float(min(1.0, 2 * ways / 2**total))
