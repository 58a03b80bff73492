"""What tests of commands share."""

from collections.abc import Callable, Iterator

import pytest

from encagg_cli import console


@pytest.fixture
def set_columns(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Makes the terminal so many columns wide."""

    def set_to(width: int) -> None:
        monkeypatch.setenv("COLUMNS", str(width))
        console.stdout.cache_clear()

    yield set_to
    console.stdout.cache_clear()
