from collections.abc import Iterator

import pytest

from tests.service.decoder.lending import lend, start_shared_decoder
from upscaled.batch.journal import Journal
from upscaled.decoder.pool import Decoder


@pytest.fixture(scope="package")  # later tests count the decoders of their process
def shared_decoder() -> Iterator[Decoder]:
    with start_shared_decoder() as decoder:
        yield decoder


@pytest.fixture
def journal() -> Iterator[Journal]:
    """A journal without a file."""
    with Journal(None) as journal:
        yield journal


@pytest.fixture
def _lent_decoder(monkeypatch: pytest.MonkeyPatch, shared_decoder: Decoder) -> None:
    lend(shared_decoder, monkeypatch)
