"""Decoder processes that outlive the core that opens them: starting them takes long."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from upscaled.config import load_settings
from upscaled.decoder.pool import Decoder


class Lent:
    """The shared decoder: opening it starts no process, and closing it ends none."""

    def __init__(self, decoder: Decoder) -> None:
        self.decode = decoder.decode

    def warm_up(self, processes: int) -> None:
        pass

    def __enter__(self) -> "Lent":
        return self

    def __exit__(self, *_: object) -> None:
        pass


@contextmanager
def start_shared_decoder() -> Iterator[Decoder]:
    """Start a decoder of the formats that are decoded where no setting names more."""
    with Decoder(load_settings({}).formats, processes=2) as decoder:
        decoder.warm_up()
        yield decoder


def lend(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each core that decodes the same formats have this decoder until the test ends."""
    shared = load_settings({}).formats

    def open_decoder(formats: Collection[str], **options: Any) -> Lent | Decoder:
        return Lent(decoder) if set(formats) == shared else Decoder(formats, **options)

    monkeypatch.setattr("upscaled.upscale.opening.Decoder", open_decoder)
