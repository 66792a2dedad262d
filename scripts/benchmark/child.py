"""A contestant in a process of its own, so that no library's threads or memory touch another's.

    python -m scripts.benchmark.child ENTRY     ENTRY: JSON of `contestant.Entry`

Answers each line of standard input by one line of JSON.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import numpy as np

from scripts.benchmark.contestant import Absent, Done, Entry, open_contestant, run_once
from scripts.benchmark.pictures import Pixels
from upscaled.config import load_settings
from upscaled.pool.worker_process import worker_environment

ROOT = Path(__file__).resolve().parents[2]
LAST_WORDS = 400
"""Most characters of a dead child's standard error that are reported."""


class Child:
    """The parent's end; `label` is known once it is open."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self._process = process
        self._errors = errors
        self._questions = cast(IO[str], process.stdin)
        self._answers = cast(IO[str], process.stdout)
        self.label = str(self._hear()["label"])

    def run_once(self) -> Done:
        answer = self._ask("run")
        return Done(float(str(answer["seconds"])), float(str(answer["gflop"])))

    def picture(self) -> Pixels | None:
        """What its last run made; runs once more."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "picture.npy"
            self._ask(f"picture {file}")
            return np.load(file) if file.exists() else None

    def peak_device_mib(self) -> float | None:
        value = self._ask("peak")["mib"]
        return None if value is None else float(str(value))

    def _ask(self, question: str) -> Mapping[str, object]:
        try:
            self._questions.write(question + "\n")
            self._questions.flush()
        except BrokenPipeError:
            pass  # its last words are raised below
        return self._hear()

    def _hear(self) -> Mapping[str, object]:
        line = self._answers.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise Absent(f"ended: {self._errors.read()[-LAST_WORDS:].strip()}")
        answer: Mapping[str, object] = json.loads(line)
        if "absent" in answer:
            raise Absent(str(answer["absent"]))
        return answer


@contextmanager
def in_child(entry: Entry) -> Iterator[Child]:
    """The contestant, open and ready, in the environment that a worker of the service has.

    All have the same one: threads that spin on a busy machine would slow the package down.

    Raises:
        Absent: it cannot take part, or died.
    """
    settings = load_settings({}, threads=entry.threads)
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "scripts.benchmark.child", entry.to_json()],
            cwd=ROOT,
            env=worker_environment(settings, os.environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            yield Child(process, errors)
        finally:
            process.kill()
            process.communicate()


def main() -> None:
    # Libraries print: what they say goes where errors go, and answers to what was standard output.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(**answer: object) -> None:
        answers.write(json.dumps(answer) + "\n")

    try:
        contestant = open_contestant(Entry.from_json(sys.argv[1]))
    except Absent as reason:
        say(absent=str(reason))
        return
    say(label=contestant.label)
    for line in sys.stdin:
        question, _, file = line.rstrip("\n").partition(" ")
        if question == "run":
            done = run_once(contestant)
            say(seconds=done.seconds, gflop=done.gflop)
        elif question == "peak":
            say(mib=contestant.peak_device_mib())
        else:
            picture = contestant.run()
            if picture is not None:
                np.save(file, picture)
            say()


if __name__ == "__main__":
    main()
