"""The picture of how `anchored-views` decides, from real rounds: `python -m tests.pictures.anchored_views`.

An honest round of `fixtures/digits.h5` under three attacks by 30 % of its clients, each in the view in which it was
cut, into `fixtures/anchored-views.svg`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import vl_convert

from encagg_cli import attacks, filters
from encagg_cli.attacks.campaign import Campaign
from encagg_cli.attacks.schedule import get_schedule
from encagg_cli.bench.poisoned import PoisonedRound
from encagg_cli.filters.passes import sketch_for
from encagg_cli.rounds.reader import Run
from encagg_cli.sketch.stored import StoredSource
from encagg_cli.verdicts.replay import judge_round

FIXTURES = Path(__file__).parents[2] / "fixtures"
PICTURE = FIXTURES / "anchored-views.svg"
ROUND = 4  # nobody poisons in it
ATTACKS = ("min-max(noise=1.0)", "gaussian", "sign-flip")
SHARE = 0.3

_COMMON = "side of what the others share"
_VIEWS = {  # of a reason, where the cut shows best
    "colluding": (
        "likeness",
        "neighbour distance",
        "unexplained part",
        "unexplained share",
        "sign unexplained share",
        "nearest signs",
    ),
    "unrelated": ("likeness", "unexplained part", "unexplained share", "sign unexplained share"),
    "distant": ("neighbour distance",),
    "shadowing": ("nearest known-benign",),
    "separate": ("principal axis", "principal direction"),
}
_COLOURS = {"known-benign": "#1b7837", "honest": "#4393c3", "poisoned": "#d6604d"}


def panel(run: Run, text: str) -> dict[str, Any]:
    """An attack as a strip: every client at its place in the view that tells the rejected apart most clearly."""
    stored = run.round(ROUND)
    trusted = frozenset(c for c, flag in zip(stored.client_ids, stored.trusted, strict=True) if flag)
    schedule = get_schedule("always")
    campaign = Campaign(
        [attacks.get(text)], ratio=SHARE, schedule=schedule, seed=0, clients=stored.client_ids, trusted=trusted
    )
    plan = campaign.plan(ROUND, stored.client_ids)
    poisoned = PoisonedRound.craft(StoredSource(stored, None), campaign, plan, trusted)
    chosen = filters.get("anchored-views(history=0)")
    decision = judge_round(sketch_for(poisoned, [chosen]), poisoned, {"it": chosen}, trusted).decisions["it"]
    rejected = ~decision.accepted
    reason = next(word for word, no in zip(decision.reason, rejected, strict=True) if no)
    shown = [name for name in _VIEWS.get(reason, ()) if f"view {name}" in decision.trace]
    places = {name: np.asarray(decision.trace[f"view {name}"]) for name in shown}
    if not places:
        assert decision.plane is not None
        places = {_COMMON: decision.plane[:, 1]}
    view, values, cut = max(
        ((name, values, _gap(values, rejected)) for name, values in places.items()), key=lambda found: found[2][0]
    )
    points = [
        {
            "value": float(value),
            "row": row % 5,
            "client": "known-benign" if client in trusted else "poisoned" if client in poisoned.place else "honest",
            "verdict": "rejected" if no else "accepted",
        }
        for row, (client, value, no) in enumerate(zip(decision.clients, values, rejected, strict=True))
    ]
    x = {"field": "value", "type": "quantitative", "title": view, "scale": {"zero": False, "nice": True}}
    return {
        "title": {"text": f"{text}, cut off as “{reason}”", "anchor": "start", "fontSize": 12},
        "width": 230,
        "height": 110,
        "layer": [
            {
                "data": {"values": [{"value": cut[1]}]},
                "mark": {"type": "rule", "strokeDash": [4, 3], "color": "#666"},
                "encoding": {"x": x},
            },
            {
                "data": {"values": points},
                "mark": {"type": "point", "filled": True, "size": 70, "opacity": 0.9},
                "encoding": {
                    "x": x,
                    "y": {"field": "row", "type": "quantitative", "axis": None, "scale": {"domain": [-1, 5]}},
                    "color": {
                        "field": "client",
                        "type": "nominal",
                        "scale": {"domain": list(_COLOURS), "range": list(_COLOURS.values())},
                        "title": "in truth",
                    },
                    "shape": {
                        "field": "verdict",
                        "type": "nominal",
                        "scale": {"domain": ["accepted", "rejected"], "range": ["circle", "cross"]},
                        "title": "verdict",
                    },
                },
            },
        ],
    }


def _gap(values: np.ndarray, rejected: np.ndarray) -> tuple[float, float]:
    """How wide the gap between the two sides is, in standard deviations of all, and its middle."""
    if values[rejected].mean() > values[~rejected].mean():
        near, far = values[~rejected].max(), values[rejected].min()
    else:
        near, far = values[~rejected].min(), values[rejected].max()
    sign = np.sign(values[rejected].mean() - values[~rejected].mean())
    return float(sign * (far - near) / values.std()), float((near + far) / 2)


def draw() -> str:
    """The picture, as SVG."""
    with Run.open(FIXTURES / "digits.h5") as run:
        panels = [panel(run, text) for text in ATTACKS]
    return vl_convert.vegalite_to_svg(
        {
            "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
            "background": "white",
            "hconcat": panels,
            "config": {"font": "sans-serif", "legend": {"orient": "bottom"}, "axis": {"grid": False}},
        }
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
    print(PICTURE)
