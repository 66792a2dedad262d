from collections.abc import Iterator

import pytest

from upscaled.config import load_settings
from upscaled.decoder.pool import Decoder


class Lent:
    """A decoder that outlives the batches that open it: starting its processes takes long."""

    def __init__(self, decoder: Decoder) -> None:
        self.decode = decoder.decode

    def warm_up(self, processes: int) -> None:
        pass

    def __enter__(self) -> "Lent":
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture(scope="package")  # later tests count the decoders of their process
def shared_decoder() -> Iterator[Decoder]:
    with Decoder(load_settings({}).formats, processes=2) as decoder:
        decoder.warm_up()
        yield decoder


@pytest.fixture
def _lent_decoder(monkeypatch: pytest.MonkeyPatch, shared_decoder: Decoder) -> None:
    monkeypatch.setattr("upscaled.upscale.opening.Decoder", lambda *_, **__: Lent(shared_decoder))
