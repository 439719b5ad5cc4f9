"""For all tests and examples: the profile of Hypothesis that one loads is not the next one's."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _same_profile() -> Iterator[None]:
    import hypothesis

    before = hypothesis.settings.get_current_profile_name()
    yield
    hypothesis.settings.load_profile(before)
