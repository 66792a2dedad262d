"""Short simulations, for tests whose claim is not how exact the figures are."""

import pytest

from scripts.simulation import sizing


@pytest.fixture
def short_simulations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a tenth of the images in this process."""
    monkeypatch.setattr(sizing, "IMAGES", sizing.IMAGES // 10)
    monkeypatch.setattr(sizing, "IMAGES_OF_A_WORKER", sizing.IMAGES_OF_A_WORKER // 10)
