"""Algorithm 1, branch by branch, on points that can be checked by eye."""

from collections.abc import Sequence

import numpy as np

from encagg_cli.filters.encagg.radius import Radius
from encagg_cli.filters.encagg.selection import Clustered, benign_label, select


def on_a_line(
    positions: Sequence[float],
    labels: Sequence[int],
    *,
    known: Sequence[int],
    roots: Sequence[int],
    pseudo: Sequence[int] = (),
) -> Clustered:
    rows = np.arange(len(positions))
    return Clustered(
        points=np.stack([np.array(positions, dtype=float), np.zeros(len(positions))], axis=1),
        labels=np.array(labels, dtype=np.int32),
        uploads=~np.isin(rows, pseudo),
        known=np.isin(rows, known),
        roots=np.array(roots),
    )


def chosen(mask: np.ndarray) -> list[int]:
    return np.flatnonzero(mask).tolist()


UNIT = Radius(1.0, (0, 1))


def test_the_benign_cluster_is_that_of_the_roots() -> None:
    clustered = on_a_line([0, 1, 2, 10, 11, 30], [0, 0, 0, 1, 1, -1], known=[0, 1], roots=[0, 1])
    found = select(clustered, UNIT, 3.0, lone_is_benign=True)
    assert found.label == 0
    assert chosen(found.members) == [0, 1, 2]
    assert not found.beyond.any()


def test_one_root_in_a_cluster_decides_where_the_other_is_noise() -> None:
    clustered = on_a_line([0, 1, 2, 10, 11], [-1, 1, 1, 0, 0], known=[0, 1], roots=[0, 1])
    assert benign_label(clustered, lone_is_benign=True) == 1


def test_of_two_clusters_with_a_root_each_the_nearer_centre_counts() -> None:
    # Cluster 0 has its centre at -3, cluster 1 at 1.5: on average 3.5 and 1.0 from the roots at 0 and 1.
    clustered = on_a_line([0, 1, -6, 2, 0.9], [0, 1, 0, 1, 2], known=[0, 1], roots=[0, 1])
    assert benign_label(clustered, lone_is_benign=True) == 1
    # Cluster 2, nearer still, holds no root and is no candidate.


def test_where_the_roots_are_noise_the_nearest_cluster_is_benign() -> None:
    clustered = on_a_line([0, 1, 4, 5, -8, -9], [-1, -1, 0, 0, 1, 1], known=[0, 1], roots=[0, 1])
    found = select(clustered, UNIT, 3.0, lone_is_benign=True)
    assert found.label == 0
    assert chosen(found.members) == [2]
    assert chosen(found.beyond) == [3]


def test_nearest_is_meant_on_average_over_the_roots() -> None:
    # Centre -1 is 1 and 11 away from the roots at 0 and 10, centre 5 is 5 and 5 away: 6 against 5.
    clustered = on_a_line([0, 10, -1, 5], [-1, -1, 0, 1], known=[0, 1], roots=[0, 1])
    assert benign_label(clustered, lone_is_benign=True) == 1


def test_an_only_cluster_is_benign_or_not_as_told_where_the_roots_are_noise() -> None:
    clustered = on_a_line([0, 1, 2.5, 2.6], [-1, -1, 0, 0], known=[0, 1], roots=[0, 1])
    assert benign_label(clustered, lone_is_benign=True) == 0
    assert benign_label(clustered, lone_is_benign=False) == -1


def test_an_only_cluster_that_holds_a_root_is_benign_in_any_case() -> None:
    clustered = on_a_line([0, 1, 2], [0, 0, 0], known=[0, 1], roots=[0, 1])
    assert benign_label(clustered, lone_is_benign=False) == 0


def test_without_clusters_noise_within_reach_is_all_there_is() -> None:
    clustered = on_a_line([0, 1, 3.5, 9], [-1] * 4, known=[0, 1], roots=[0, 1])
    found = select(clustered, UNIT, 3.0, lone_is_benign=True)
    assert found.label == -1
    assert chosen(found.members) == [0, 1, 2]


def test_members_farther_than_the_reach_from_every_known_benign_upload_are_left_out() -> None:
    # A chain walks out of the cluster; the known-benign at 0 and 6 reach to 3 and from 3 to 9.
    positions = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9.5]
    clustered = on_a_line(positions, [0] * 11, known=[0, 6], roots=[0, 6])
    found = select(clustered, UNIT, 3.0, lone_is_benign=True)
    assert chosen(found.beyond) == [10]
    assert chosen(found.members) == list(range(10))
    tight = select(clustered, UNIT, 1.0, lone_is_benign=True)
    assert chosen(tight.members) == [0, 1, 5, 6, 7]


def test_known_benign_uploads_in_another_cluster_extend_the_reach_but_are_not_members() -> None:
    clustered = on_a_line([0, 1, 5, 8], [0, 0, 0, 1], known=[0, 1, 3], roots=[0, 1])
    found = select(clustered, UNIT, 3.0, lone_is_benign=True)
    assert chosen(found.members) == [0, 1, 2]


def test_pseudo_gradients_shape_clusters_but_are_never_chosen() -> None:
    clustered = on_a_line([0, 1, 2, 1.5], [0, 0, 0, 0], known=[0, 1], roots=[0, 1], pseudo=[3])
    found = select(clustered, UNIT, 3.0, lone_is_benign=True)
    assert chosen(found.members) == [0, 1, 2]
    assert not found.beyond[3]


def test_a_cluster_of_pseudo_gradients_alone_is_no_candidate() -> None:
    clustered = on_a_line([0, 1, 0.5, 0.6, 20, 21], [-1, -1, 0, 0, 1, 1], known=[0, 1], roots=[0, 1], pseudo=[2, 3])
    assert benign_label(clustered, lone_is_benign=True) == 1
    assert benign_label(clustered, lone_is_benign=False) == -1


def test_one_remaining_root_decides_alone() -> None:
    clustered = on_a_line([0, 10, 11], [-1, 1, 1], known=[0], roots=[0])
    assert benign_label(clustered, lone_is_benign=True) == 1
