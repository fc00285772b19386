from __future__ import annotations

import pytest

from eval.load import pauses


@pytest.fixture(autouse=True)
def busy_machine_is_no_pause(monkeypatch):
    """Tests that count requests share their processor with others; those of pauses set what one is."""
    monkeypatch.setattr(pauses, "MAX_STALL_S", 30.0)
