"""The signature: read back as it was written, the same on any machine, and strict about what must agree."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encagg_cli.errors import UnusableInput
from encagg_cli.score.scorer import score_verdicts
from encagg_cli.score.signature import Signature, explain, must_agree
from encagg_cli.verdicts.reader import Verdicts

FILTER = {
    "schema": "1",
    "version": "0.1.0",
    "methods": {"encagg": {"name": "encagg", "settings": {"r": 0.2, "seed": 0}}, "other": {"settings": {"f": None}}},
    "rounds": {"count": 1, "first": 1, "last": 1},
}
ANY_TEXT = st.text(st.characters(), max_size=12)


@given(st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=6))
def test_the_text_form_is_one_printable_line_that_is_read_back(facts: dict[str, str]) -> None:
    text = str(Signature(facts))
    assert text.isascii()
    assert not text or text.isprintable()
    assert Signature.parse(text).facts == facts


@pytest.mark.parametrize("text", ["no colon", "a:1|b", "a:%FF"])
def test_text_that_is_no_signature_is_refused(text: str) -> None:
    with pytest.raises(UnusableInput):
        Signature.parse(text)


def signature(path: Path, save: Callable[..., Path], **changes: object) -> Signature:
    rows = [
        {"round": 1, "client_id": client, "poisoned": poisoned, "score": score, "accepted": score < 1, **changes}
        for client, poisoned, score in (("a", False, 0.25), ("b", True, 1.5), ("c", False, 0.5))
    ]
    with Verdicts(save(path, rows, signature=FILTER)) as verdicts:
        return score_verdicts(verdicts).signature


def test_it_states_everything_that_decided_the_number(tmp_path: Path, save_verdicts: Callable[..., Path]) -> None:
    facts = dict(signature(tmp_path / "v.parquet", save_verdicts).facts)
    digests = facts.pop("verdicts.digest"), facts.pop("labels.digest"), facts.pop("version")
    assert all(digests)
    assert facts == {
        "schema": "1",
        "positive": "poisoned",
        "known-benign": "not counted",
        "methods": "encagg",
        "filter.schema": "1",
        "filter.version": "0.1.0",
        "filter.methods.encagg.name": "encagg",
        "filter.methods.encagg.settings.r": "0.2",
        "filter.methods.encagg.settings.seed": "0",
        "filter.rounds.count": "1",
        "filter.rounds.first": "1",
        "filter.rounds.last": "1",
        "verdicts.schema": "1",
        "labels.source": "verdicts",
        "counts.rounds": "1",
        "counts.clients": "3",
        "counts.uploads": "3",
        "counts.poisoned": "1",
        "counts.honest": "2",
        "counts.unlabelled": "0",
        "counts.known_benign": "0",
        "bootstrap.resamples": "1000",
        "bootstrap.seed": "0",
    }


def test_it_is_the_same_on_every_machine(tmp_path: Path, save_verdicts: Callable[..., Path]) -> None:
    facts = signature(tmp_path / "v.parquet", save_verdicts).facts
    assert (facts["verdicts.digest"], facts["labels.digest"]) == ("8c078e73fdb9ce6d", "ebbd8de8da8ecb43")


def test_the_digest_of_verdicts_depends_on_what_decides_and_on_nothing_else(
    tmp_path: Path, save_verdicts: Callable[..., Path]
) -> None:
    def digest(**changes: object) -> str:
        return signature(tmp_path / "v.parquet", save_verdicts, **changes).facts["verdicts.digest"]

    plain = digest()
    assert digest(reason="noise", x=0.5, weight=0.1) == plain
    for change in ({"accepted": True}, {"round": 2}, {"method": "krum"}, {"trusted": True}, {"score": 1.0}):
        assert digest(**change) != plain


def test_scores_of_the_same_order_have_the_same_digest(tmp_path: Path, save_verdicts: Callable[..., Path]) -> None:
    digests = set()
    for last_bits in (0.0, 1e-15):
        rows = [{"round": 1, "client_id": c, "score": s + last_bits} for c, s in (("a", 0.25), ("b", 0.5))]
        with Verdicts(save_verdicts(tmp_path / "v.parquet", rows)) as verdicts:
            digests.add(score_verdicts(verdicts).signature.facts["verdicts.digest"])
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("name", "strict"),
    [
        ("schema", True),
        ("positive", True),
        ("known-benign", True),
        ("verdicts.schema", True),
        ("filter.schema", True),
        ("filter.methods.encagg.settings.r", True),
        ("filter.methods.krum(f=0.2).settings.f", True),
        ("filter.methods.other.settings.f", False),
        ("filter.methods.encagg-2.settings.f", False),
        ("filter.something-new", True),
        ("filter.version", False),
        ("filter.updates", False),
        ("filter.rounds.count", False),
        ("version", False),
        ("verdicts.digest", False),
        ("labels.digest", False),
        ("counts.rounds", False),
        ("bootstrap.seed", False),
    ],
)
def test_what_must_agree_for_two_scores_to_be_compared(name: str, strict: bool) -> None:
    assert must_agree(name, ["encagg", "krum(f=0.2)"]) is strict


def test_the_words_name_every_setting_and_are_safe_to_print(tmp_path: Path, save_verdicts: Callable[..., Path]) -> None:
    facts = {**signature(tmp_path / "v.parquet", save_verdicts).facts, "filter.::error::x": "\x1b[31m\n::error::y"}
    lines = explain(Signature(facts))
    assert "- methods.encagg.settings.r = 0.2" in lines
    assert any("3 uploads in 1 round, 3 clients: 1 poisoned, 2 honest" in line for line in lines)
    assert all(line.isprintable() and not line.lstrip().startswith("::") for line in lines)
