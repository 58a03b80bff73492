"""The cascade: copies, then one cut after another in whichever view the clients fall apart most."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.anchored_views.anchors import by_chance_apart
from encagg_cli.filters.anchored_views.copies import coincide, copied
from encagg_cli.filters.anchored_views.joint import joint_group
from encagg_cli.filters.anchored_views.reversal import reversed_group
from encagg_cli.filters.anchored_views.scene import Scene
from encagg_cli.filters.anchored_views.split import anchored_split
from encagg_cli.filters.anchored_views.standing import Outlook
from encagg_cli.filters.anchored_views.views import FEWEST

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

_MOST_CUTS = 8
_FEWEST_ANCHORS_TO_DOUBT = 3
_LATER = 2.0  # how much clearer a cut must be once somebody has been rejected
_CLEAR = 4.0  # evidence from which a cut goes before the test for reversed uploads, whatever the group shares
_UNMEASURED = 2.0  # evidence of being reversed, or joint, which have no common measure


@dataclass
class Findings:
    """What was found, aligned with the clients.

    evidence   of the strongest group that a client was in, as a multiple of what rejects; 1 and above if rejected
               (2 for all that are reversed or joint: the searches have no common measure)
    reason     why, for the rejected; "" for the others
    cluster    0 for those that are left, 1, 2, … for the groups in the order in which they were rejected
    common     how far the upload lies on the side of what the others share (sides.py), when last looked at; else NaN
    accused    who is reversed so clearly that later rounds may hold it against them (reversal.py)
    searched   whether a search of this round found such a group, rather than earlier rounds
    first_views  every view as the first cut saw it, (n,) each, NaN for copies, which had been rejected before
    """

    rejected: Mask
    evidence: Numbers
    reason: NDArray[np.object_]
    cluster: NDArray[np.int32]
    common: Numbers
    accused: Mask
    searched: bool = False
    first_views: Mapping[str, Numbers] = field(default_factory=dict)

    @classmethod
    def none(cls, n: int) -> "Findings":
        return cls(
            rejected=np.zeros(n, dtype=bool),
            evidence=np.zeros(n),
            reason=np.full(n, "", dtype=object),
            cluster=np.zeros(n, dtype=np.int32),
            common=np.full(n, np.nan),
            accused=np.zeros(n, dtype=bool),
        )

    def reject(self, group: NDArray[np.intp], reason: str, evidence: float) -> None:
        self.rejected[group] = True
        self.evidence[group] = np.maximum(self.evidence[group], evidence)
        self.reason[group] = reason
        self.cluster[group] = self.cluster.max() + 1


def required_gain(alpha: float, n: int) -> float:
    """Gain, in nats, that the best split among `n` honest clients exceeds so rarely that half of `alpha` is lost.

    The other half is left to the search for those who oppose the rest (reversal.py). Fitted on honest rounds of
    scikit-learn's digits: 10 to 100 clients, IID to Dirichlet 0.1, one batch to five epochs, 2 to 10 known-benign. The
    gain has no unit, and the same figures hold on MNIST within ±2 nats.
    """
    return max(1.0, 7.5 + 2.6 * float(np.log(0.02 / alpha)) + 0.06 * n)


@dataclass(frozen=True)
class Searches:
    """What is looked for (reversal.py): `sides`, who opposes the rest.

    With `groups`, also groups without a sure member, and who has something in common (joint.py); with `today_alone`,
    also who opposes the rest in this round only; with `accused`, also who did so in earlier ones, and a little now.
    """

    sides: bool = True
    groups: bool = True
    today_alone: bool = True
    accused: bool = True


def detect(
    scene: Scene, trusted: Mask, alpha: float, among: Mask | None = None, searches: Searches = Searches()
) -> Findings:
    """Reject groups of uploads until the rest hangs together.

    `trusted` (n,) masks the known-benign, one at least, who are never rejected. Only the clients in `among` (n,) are
    looked at; all, where it is not given.
    """
    found = Findings.none(len(trusted))
    present = np.ones(len(trusted), dtype=bool) if among is None else among
    for group in copied(coincide(scene.gram.distances, trusted), trusted, present):
        found.reject(group, "copy", np.inf)
    for _ in range(_MOST_CUTS):
        alive = np.flatnonzero(present & ~found.rejected)
        if len(alive) < FEWEST or not _cut(scene, alive, trusted, alpha, found, searches):
            break
    return found


def suspect_anchor(scene: Scene, trusted: Mask, alpha: float, known: Findings) -> int | None:
    """The known-benign client whom the others, were it unknown to them, would reject most clearly; None in most rounds.

    Each is tried as an unknown among the clients that are left by the findings `known`, at a share of `alpha`: those
    rejected already must not bring it into disrepute by copying it. It takes three: of two, none is the odd one. Who
    lies on the side of what the others share is not reversed, known-benign or not, and of two known-benign clients with
    one upload there is no telling which copied. Groups without a sure member are not looked for, nor, where earlier
    rounds are known, who is reversed in this one alone: honest batches have two sides in some rounds, and one of few
    known-benign clients is on the smaller one more often than it is poisoned. And of honest clients with rare data, one
    is often the only known-benign one.
    """
    anchors = np.flatnonzero(trusted)
    same = coincide(scene.gram.distances, trusted)
    if len(anchors) < _FEWEST_ANCHORS_TO_DOUBT:
        return None
    evidence = np.zeros(len(anchors))
    for at, anchor in enumerate(anchors):
        others = trusted.copy()
        others[anchor] = False
        if (same[anchor] & others).any():
            continue
        searches = Searches(sides=not known.common[anchor] >= 0, groups=False, today_alone=False, accused=False)
        found = detect(scene, others, alpha / len(anchors), ~known.rejected, searches)
        evidence[at] = found.evidence[anchor] if found.rejected[anchor] else 0.0
    worst = int(evidence.argmax())
    return int(anchors[worst]) if evidence[worst] > 0 else None


def _cut(
    scene: Scene, alive: NDArray[np.intp], trusted: Mask, alpha: float, found: Findings, searches: Searches
) -> bool:
    """Reject the group that stands out most among `alive`; False where none stands out enough.

    Who opposes the rest goes first, unless a view is far clearer: who stands out in one view is an honest client more
    often, and once anybody has been rejected, more is asked of all others.
    """
    later = bool(found.rejected.any())
    ordinary = required_gain(alpha * min(1.0, by_chance_apart(int(trusted.sum()))), len(alive))
    required = ordinary * (_LATER if later else 1.0)
    strongest, group, reason = 0.0, alive[:0], ""
    views = scene.views(alive, trusted)
    for view in views:
        split = anchored_split(view.values, trusted[alive], low=bool(view.low), high=bool(view.high))
        if split is None:
            continue
        evidence = split.gain / (required * view.bar)
        members = alive[split.far if view.eligible is None else split.far & view.eligible]
        if len(members) < view.fewest:
            continue
        word = view.high if split.high else view.low
        most = view.most_shared.get(word, np.inf)
        if np.isfinite(most) and 1.0 < evidence < _CLEAR and not scene.shared(alive, split.far) <= most:
            continue
        found.evidence[members] = np.maximum(found.evidence[members], min(evidence, 1.0))
        if evidence > strongest:
            strongest, group, reason = evidence, members, word
    if not found.first_views:
        found.first_views = {view.name: _of_all(view.values, alive, len(trusted)) for view in views}
    outlook = Outlook(
        [view for view in views if view.weighed], ordinary, np.isin(alive, group) if strongest > 1.0 else None
    )
    if searches.sides and strongest < _CLEAR:
        reversed_ = _reversed(scene, alive, outlook, trusted, alpha, found, searches)
        if outlook.widens(reversed_):
            found.reject(group, reason, strongest)
            return True
        if reversed_.any():
            found.reject(alive[reversed_], "reversed", _UNMEASURED)
            return True
    if searches.groups and strongest < _CLEAR and _joint(scene, alive, trusted, alpha, found):
        return True
    if strongest > 1.0:
        found.reject(group, reason, strongest)
    return strongest > 1.0


def _reversed(
    scene: Scene,
    alive: NDArray[np.intp],
    outlook: Outlook,
    trusted: Mask,
    alpha: float,
    found: Findings,
    searches: Searches,
) -> Mask:
    """Who of those `alive` opposes the rest as a group; the `found` take note of whom later rounds may accuse."""
    evidence = scene.evidence(alive)
    accused = scene.past.accused if searches.accused else None
    reversal = reversed_group(
        evidence,
        trusted[alive],
        alpha,
        outlook=outlook,
        later=bool(found.rejected.any()),
        groups=searches.groups,
        today_alone=searches.today_alone,
        accused=None if accused is None else accused[alive],
    )
    found.common[alive] = reversal.common
    found.accused[alive[reversal.certain]] = True
    found.searched |= reversal.searched
    return reversal.group


def _joint(scene: Scene, alive: NDArray[np.intp], trusted: Mask, alpha: float, found: Findings) -> bool:
    """Reject those who have something in common that no known-benign upload has; False where nobody does."""
    joint = joint_group(
        scene.updates(alive), scene.signs[alive].cosines, trusted[alive], alpha, later=bool(found.rejected.any())
    )
    if joint.any():
        found.reject(alive[joint], "joint", _UNMEASURED)
    return bool(joint.any())


def _of_all(values: Numbers, alive: NDArray[np.intp], n: int) -> Numbers:
    """(n,) the `values` of the clients `alive`; NaN for the others."""
    whole = np.full(n, np.nan)
    whole[alive] = values
    return whole
