"""The README's picture can be drawn anew, and shows what the filter does today."""

import re

import pytest

pytest.importorskip("vl_convert")

from tests.pictures.anchored_views import ATTACKS, PICTURE, draw


def titles(picture: str) -> list[str]:
    return re.findall(">([^<]*, cut off as [^<]*)<", picture)


def test_the_picture_is_that_of_todays_filter():
    drawn = titles(draw())
    assert [title.split(", cut off")[0] for title in drawn] == list(ATTACKS)
    assert titles(PICTURE.read_text(encoding="utf-8")) == drawn
