"""The README's picture can be drawn anew, and shows what the filter does today."""

import pytest

pytest.importorskip("vl_convert")

from tests.pictures.anchored_views import ATTACKS, PICTURE, draw


def test_the_picture_is_that_of_todays_filter():
    picture = draw()
    assert picture.count("cut off as") == len(ATTACKS)
    shown = PICTURE.read_text(encoding="utf-8")
    for attack in ATTACKS:  # text, and not the bytes: those depend on the library's version
        title = next(line for line in picture.split("<") if f"{attack}, cut off as" in line)
        assert title.split(">")[-1] in shown
