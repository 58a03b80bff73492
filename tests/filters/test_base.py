"""What every filter inherits: deciding on arrays, scores that respect a verdict, settings as canonical text."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from encagg_cli.errors import UnusableInput, UsageError
from encagg_cli.filters import Requirement, available, canonical, get, kind_of
from encagg_cli.filters.base import ACCEPT_THRESHOLD, suspicion
from encagg_cli.filters.verdict import by_weight, clip_factors, relative
from encagg_cli.rounds.layout import Parameter

UPDATES = np.random.default_rng(0).standard_normal((6, 8))


@settings(deadline=None)  # a loaded machine is no failure
@given(arrays(bool, 9), arrays(float, 9, elements=st.floats(0, np.inf)))
def test_suspicion_respects_the_verdict_and_the_order_on_either_side(
    accepted: np.ndarray[tuple[int], np.dtype[np.bool_]], figure: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> None:
    score = suspicion(accepted, figure)
    assert ((score >= 0) & (score <= 1)).all()
    assert (score[accepted] < ACCEPT_THRESHOLD).all()
    assert (score[~accepted] >= ACCEPT_THRESHOLD).all()
    for side in (accepted, ~accepted):
        order = np.argsort(figure[side], kind="stable")
        assert (np.diff(score[side][order]) >= 0).all()


def test_figures_are_taken_in_units_of_their_own_median() -> None:
    np.testing.assert_allclose(relative(np.array([0.0, 2.0, 4.0, 6.0])), [0.0, 0.5, 1.0, 1.5])
    np.testing.assert_array_equal(relative(np.zeros(3)), 0.0)
    assert relative(np.array([1e-300, 1e300, np.inf]))[2] == np.inf


def test_weights_make_a_verdict_only_where_they_tell_uploads_apart() -> None:
    np.testing.assert_array_equal(by_weight(np.array([1.0, 1.0, 0.5, 0.2]), 0.5), [True, True, True, False])
    np.testing.assert_array_equal(by_weight(np.zeros(3), 0.5), True)
    np.testing.assert_allclose(clip_factors(np.array([0.0, 1.0, 4.0]), 2.0), [1.0, 1.0, 0.5])


def test_a_mapping_and_a_matrix_are_judged_alike() -> None:
    by_row = get("multi-krum(f=1)").decide(UPDATES, clients="abcdef", trusted=[2])
    by_name = get("multi-krum(f=1)").decide(dict(zip("abcdef", UPDATES, strict=True)), trusted=["c"])
    np.testing.assert_array_equal(by_row.score, by_name.score)
    assert by_row.clients == by_name.clients == tuple("abcdef")


def test_the_decision_comes_in_the_order_of_the_updates() -> None:
    decision = get("norm-bound(bound=1.0)").decide(UPDATES, clients="fbdaec")
    assert decision.clients == tuple("fbdaec")
    assert decision.statistic is not None
    norms = np.linalg.norm(UPDATES, axis=1)
    np.testing.assert_allclose(decision.statistic, norms, rtol=1e-6)
    turned = decision.in_order("abcdef")
    assert turned.statistic is not None
    np.testing.assert_allclose(turned.statistic, norms[[3, 1, 5, 2, 4, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"trusted": ["nobody"]}, "'nobody' has no update"),
        ({"trusted": np.array([True])}, "mask of known-benign clients needs 6 entries"),
        ({"clients": "aabbcc"}, "same client id"),
        ({"clients": "abc"}, "3 client ids for 6 updates"),
        ({"num_examples": [1, 2]}, "2 sample counts for 6 updates"),
        ({"parameters": [Parameter("w", (3,), 0)]}, "do not add up to the updates' 8 parameters"),
        ({"vectors": {"global_model": np.zeros(3)}}, "global_model has shape"),
    ],
)
def test_arguments_that_do_not_fit_the_updates_are_refused(more: dict[str, object], message: str) -> None:
    with pytest.raises((UsageError, UnusableInput), match=message):
        get("mean").decide(UPDATES, **more)  # type: ignore[arg-type]


def test_updates_must_be_a_matrix_and_a_mapping_names_its_own_clients() -> None:
    for unfit in (UPDATES[0], [], "updates", UPDATES.astype(str)):
        with pytest.raises(UsageError, match="updates are a matrix"):
            get("mean").decide(unfit)
    for trusted in ([len(UPDATES)], [-1]):
        with pytest.raises(UsageError, match="no row"):
            get("mean").decide(UPDATES, trusted=trusted)
    with pytest.raises(UsageError, match="named by the mapping"):
        get("mean").decide({"a": UPDATES[0]}, clients=["b"])


def test_canonical_text_shows_what_differs_from_the_defaults() -> None:
    assert canonical(get("flame")) == "flame"
    assert canonical(get("flame(on=updates,noise=0.001)")) == "flame(on=updates)"
    assert canonical(get("multi-krum", f=0.3, relaxed=True)) == "multi-krum(f=0.3,relaxed=true)"
    assert canonical(get("trimmed-mean(f=oracle, beta=0.25)")) == "trimmed-mean(beta=0.25,f=oracle)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flame(on=both)", "flame.on must be auto or models or updates"),
        ("flame(noise=-1)", "flame.noise must be at least 0"),
        ("signguard(share=0)", "signguard.share must be above 0"),
        ("median(reject_above=1.0)", "median.reject_above must be below 1"),
        ("dnc(f=2,iterations=many)", "dnc.iterations must be a whole number"),
        ("foolsgold(buckets=1000)", "foolsgold has a power of two"),
        ("nothing", "there is no method 'nothing'"),
        ("flame on", "cannot read .* as a method"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        get(text)


def test_a_linear_rule_has_no_columns_of_its_own_and_most_rules_do_not_look_back() -> None:
    chosen = get("mean")
    decision = chosen.decide(UPDATES)
    with pytest.raises(TypeError, match="weights times the updates"):
        chosen.combine(decision, UPDATES, 0)
    with pytest.raises(TypeError, match="does not look back"):
        chosen.see_aggregate([])
    assert not chosen.wants_aggregate()


def test_a_filter_is_found_by_its_name() -> None:
    assert kind_of("krum").name == "krum"
    with pytest.raises(UsageError, match="no method"):
        kind_of("crumb")


def test_a_list_of_flags_is_a_mask_of_the_known_benign() -> None:
    flags = [row in (2, 3) for row in range(len(UPDATES))]
    by_flags, by_rows = (get("k-means").decide(UPDATES, trusted=t) for t in (flags, [2, 3]))
    np.testing.assert_array_equal(by_flags.score, by_rows.score)
    np.testing.assert_array_equal(by_flags.accepted, by_rows.accepted)


@pytest.mark.parametrize("name", [name for name in available() if Requirement.KNOWN_BENIGN in kind_of(name).requires])
def test_a_filter_that_measures_by_known_benign_clients_is_not_run_without_them(name: str) -> None:
    fewest = kind_of(name).least_known_benign
    with pytest.raises(UsageError, match=f"{name} needs at least {fewest} known-benign") as refusal:
        get(name).decide(UPDATES, trusted=range(fewest - 1))
    assert refusal.value.hint is not None
    assert "trusted=[" in refusal.value.hint
    assert len(get(name).decide(UPDATES, trusted=range(fewest)).clients) == len(UPDATES)


def test_fltrust_is_not_run_without_a_root_gradient() -> None:
    with pytest.raises(UsageError, match="own gradient"):
        get("fltrust").decide(UPDATES)


def test_a_decision_is_shown_in_a_line() -> None:
    updates = np.vstack([UPDATES, np.full(8, np.nan)])
    assert repr(get("mean").decide(updates)) == "<Decision on 7 uploads: 1 rejected (non-finite 1)>"
    assert repr(get("mean").decide(UPDATES[:1])) == "<Decision on 1 upload: 0 rejected>"


@pytest.mark.parametrize(
    ("text", "rejects"),
    [("mean", False), ("median", False), ("median(reject_above=0.5)", True), ("norm-bound", False), ("k-means", True)],
)
def test_a_filter_says_whether_it_rejects_anybody(text: str, rejects: bool) -> None:
    assert get(text).rejects == rejects
