"""How many honest uploads are lost where nobody attacks, by the number of clients and of known-benign ones.

python -m tests.benchmarks.false_alarms [--clients 8 10 12 15 20] [--known-benign 2 3] [--draws 6] [--classes 10]
    [--method METHOD]

Trains honest federations of scikit-learn's digits (IID and Dirichlet; an MLP, a softmax regression and a CNN; FedAvg
and one-batch FedSGD), and replays the method over rounds 1 to 10 of each, for several draws of known-benign clients.
Prints the share of honest uploads lost, against the `alpha` that `anchored-views` is told, and what other
methods lose (known-benign clients are never counted). With `--classes`, digits are told apart by their remainder only:
of two classes, many clients have but one.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from unittest.mock import patch

import numpy as np

from encagg_cli.federation import datasets
from encagg_cli.federation.loop import Federation, as_source
from encagg_cli.federation.setup import Setup
from encagg_cli.federation.simulate import plain_mean
from encagg_cli.filters import get
from encagg_cli.filters.passes import sketch_for
from encagg_cli.rounds.memory import MemoryRound
from encagg_cli.sketch import RoundSketch
from encagg_cli.verdicts.replay import judge_round

ALPHA = 0.02
SUBJECT = f"anchored-views(alpha={ALPHA})"
PEERS = ("k-means", "cosine-to-known-benign")
ROUNDS = 11  # the first of which is left out
KINDS = {
    "MLP, IID": {"partition": "iid"},
    "MLP, Dirichlet 1": {"alpha": 1.0},
    "MLP, Dirichlet 0.5": {},
    "softmax, Dirichlet 0.5": {"model": "logistic", "learning_rate": 0.1},
    "CNN, Dirichlet 0.5": {"model": "cnn"},
    "MLP, FedSGD": {"algorithm": "fedsgd"},
}

Rounds = list[tuple[MemoryRound, RoundSketch]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[8, 10, 12, 15, 20])
    parser.add_argument("--known-benign", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument("--classes", type=int, default=10, help="of the digits: their remainder by this")
    parser.add_argument("--method", default=SUBJECT, help="instead of anchored-views")
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    with patch.object(datasets, "load", lambda *_: digits_of(options.classes)):
        measure(options)


def digits_of(classes: int, load: Callable[[str], datasets.Dataset] = datasets.load) -> datasets.Dataset:
    whole = load("digits")
    return replace(whole, train_y=whole.train_y % classes, test_y=whole.test_y % classes, classes=classes)


def measure(options: argparse.Namespace) -> None:
    methods = (options.method, *PEERS)
    print(f"{'clients':>7} {'known':>5}  {options.method:>28} {'/ alpha':>7}", *(f"{peer:>24}" for peer in PEERS))
    by_kind: dict[str, list[float]] = defaultdict(list)
    for clients in options.clients:
        federations = {kind: honest_rounds(clients, options.seed, methods, **more) for kind, more in KINDS.items()}
        for known_benign in options.known_benign:
            lost = {
                kind: np.mean([losses(rounds, methods, known_benign, draw) for draw in range(options.draws)], axis=0)
                for kind, rounds in federations.items()
            }
            share, *others = np.mean(list(lost.values()), axis=0)
            for kind, losses_of_kind in lost.items():
                by_kind[kind].append(losses_of_kind[0])
            peers = (f"{other:24.3f}" for other in others)
            print(f"{clients:7} {known_benign:5}  {share:28.4f} {share / ALPHA:7.2f}", *peers, flush=True)
    print("by federation:", ", ".join(f"{kind} {np.mean(values):.4f}" for kind, values in by_kind.items()))


def honest_rounds(clients: int, seed: int, methods: tuple[str, ...], **more: object) -> Rounds:
    """The rounds of a federation that nobody attacks, each with its sketch."""
    federation = Federation(Setup(clients=clients, rounds=ROUNDS, trusted=0, seed=seed, **more))  # type: ignore[arg-type]
    model, rounds = federation.initial, []
    rate = np.float32(1.0 if federation.setup.algorithm == "fedavg" else -federation.setup.training.learning_rate)
    for number in range(ROUNDS):
        uploads = federation.uploads(number, model)
        if number:
            rounds.append((uploads, sketch_for(as_source(uploads, None), [get(method) for method in methods])))
        step = plain_mean(uploads, np.isfinite(uploads.norms))
        model = model if step is None else (model + rate * step).astype(np.float32)
    return rounds


def losses(rounds: Rounds, methods: tuple[str, ...], known_benign: int, draw: int) -> list[float]:
    """Share of the uploads of clients not known to be benign that each method rejects."""
    ids = rounds[0][0].client_ids
    trusted = frozenset(np.random.default_rng(draw).choice(ids, known_benign, replace=False).tolist())
    replayed = {method: get(method) for method in methods}
    others = np.array([client not in trusted for client in ids])
    lost = []
    for uploads, sketch in rounds:
        decisions = judge_round(sketch, uploads, replayed, trusted).decisions
        lost.append([1.0 - decisions[m].in_order(ids).accepted[others].mean() for m in methods])
    return np.mean(lost, axis=0).tolist()


if __name__ == "__main__":
    main()
