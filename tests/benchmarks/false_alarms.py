"""How many honest uploads are lost where nobody attacks, by the number of clients and of known-benign ones.

python -m tests.benchmarks.false_alarms [--clients 8 10 12 15 20] [--known-benign 2 3] [--draws 6] [--classes 10]
    [--noise 0] [--method METHOD]

Trains honest federations of scikit-learn's digits (IID and Dirichlet; an MLP, a softmax regression and a CNN; FedAvg
and one-batch FedSGD), and replays the method over rounds 1 to 10 of each, for several draws of known-benign clients.
Prints the share of honest uploads lost, against the `alpha` that `anchored-views` is told, and what other
methods lose (known-benign clients are never counted). With `--classes`, digits are told apart by their remainder only:
of two classes, many clients have but one. With `--noise`, they are larger, moved, and in so much noise that a model
learns little, and what clients share is little beside what their classes differ in.
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
NOISY = {"epochs": 1, "batch_size": 32, "learning_rate": 0.05}
NOISY_KINDS = {
    "MLP, Dirichlet 0.1": {"alpha": 0.1, **NOISY},
    "MLP, Dirichlet 0.3": {"alpha": 0.3, **NOISY},
    "MLP, Dirichlet 0.5": NOISY,
    "CNN, Dirichlet 0.1": {"alpha": 0.1, "model": "cnn", **NOISY},
    "CNN, Dirichlet 0.5": {"model": "cnn", **NOISY},
    "CNN, FedSGD": {"model": "cnn", "algorithm": "fedsgd", "learning_rate": 0.1},
}
NOISY_SAMPLES = 10_000

Rounds = list[tuple[MemoryRound, RoundSketch]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[8, 10, 12, 15, 20])
    parser.add_argument("--known-benign", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument("--classes", type=int, default=10, help="of the digits: their remainder by this")
    parser.add_argument("--noise", type=float, default=0.0, help="its standard deviation, where ink is 1")
    parser.add_argument("--method", default=SUBJECT, help="instead of anchored-views")
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    digits = digits_of(options.classes)
    if options.noise:
        digits = noisy(digits, options.noise)
    with patch.object(datasets, "load", lambda *_: digits):
        measure(options)


def digits_of(classes: int, load: Callable[[str], datasets.Dataset] = datasets.load) -> datasets.Dataset:
    whole = load("digits")
    return replace(whole, train_y=whole.train_y % classes, test_y=whole.test_y % classes, classes=classes)


def noisy(digits: datasets.Dataset, noise: float) -> datasets.Dataset:
    """Samples twice as large, moved by up to two pixels, some fainter than others, in noise."""
    random = np.random.default_rng(99)

    def drawn(x: np.ndarray, y: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = random.integers(0, len(y), samples)
        large = np.kron(x[chosen, 0], np.ones((2, 2)))
        moves = random.integers(-2, 3, (samples, 2))
        moved = np.stack([np.roll(image, move, (0, 1)) for image, move in zip(large, moves, strict=True)])
        faint = moved * random.uniform(0.5, 1.2, (samples, 1, 1)) + random.normal(0.0, noise, moved.shape)
        return ((faint - 0.3) / np.sqrt(0.14 + noise**2))[:, None].astype(np.float32), y[chosen]

    train, test = drawn(digits.train_x, digits.train_y, NOISY_SAMPLES), drawn(digits.test_x, digits.test_y, 1000)
    return replace(digits, train_x=train[0], train_y=train[1], test_x=test[0], test_y=test[1])


def measure(options: argparse.Namespace) -> None:
    methods = (options.method, *PEERS)
    print(f"{'clients':>7} {'known':>5}  {options.method:>28} {'/ alpha':>7}", *(f"{peer:>24}" for peer in PEERS))
    by_kind: dict[str, list[float]] = defaultdict(list)
    kinds = NOISY_KINDS if options.noise else KINDS
    for clients in options.clients:
        federations = {kind: honest_rounds(clients, options.seed, methods, **more) for kind, more in kinds.items()}
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
