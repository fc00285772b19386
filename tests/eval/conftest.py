from __future__ import annotations

import pytest

from eval.load import pauses


@pytest.fixture(scope="module", autouse=True)  # before a module's other fixtures, which may run as well
def busy_machine_is_no_pause():
    """Tests that count requests share their processor with others; those of pauses set what one is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pauses, "MAX_STALL_S", 30.0)
        yield
