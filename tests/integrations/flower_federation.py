"""A small real federation for Flower: softmax regression on scikit-learn's digits; one client turns against it.

The client app lives in a module of its own because Flower's simulation engine sends it to other processes.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

CLIENTS = 6
ATTACKER = 5
CLASSES = 10


def initial_model() -> dict[str, NDArray[np.float32]]:
    """Weights and bias, and a counter that is no part of an update."""
    rng = np.random.default_rng(0)
    return {
        "weight": rng.normal(0, 0.01, (64, CLASSES)).astype(np.float32),
        "bias": np.zeros(CLASSES, dtype=np.float32),
        "steps": np.zeros((), dtype=np.int64),
    }


def train(model: dict[str, NDArray[Any]], partition: int) -> dict[str, NDArray[Any]]:
    """Twenty steps of gradient descent on the client's share of the digits; the attacker walks the other way."""
    images, labels = load_digits(return_X_y=True)
    share = slice(partition, None, CLIENTS)
    x, y = images[share] / 16.0, np.eye(CLASSES)[labels[share]]
    weight, bias = model["weight"].astype(np.float64), model["bias"].astype(np.float64)
    for _ in range(20):
        scores = x @ weight + bias
        scores -= scores.max(axis=1, keepdims=True)
        probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        error = (probabilities - y) / len(x)
        weight -= 0.5 * x.T @ error
        bias -= 0.5 * error.sum(axis=0)
    sign = -3.0 if partition == ATTACKER else 1.0
    return {
        "weight": (model["weight"] + sign * (weight - model["weight"])).astype(np.float32),
        "bias": (model["bias"] + sign * (bias - model["bias"])).astype(np.float32),
        "steps": model["steps"] + 20,
    }


def keep(folder: Path, round_number: int, partition: int, before: dict[str, Any], after: dict[str, Any]) -> None:
    """Write down what the client knows it changed, for the test to compare with what was recorded."""
    update = [after[name].astype(np.float64) - before[name].astype(np.float64) for name in ("weight", "bias")]
    np.save(folder / f"{round_number}-{partition}.npy", np.concatenate([part.ravel() for part in update]))


def message_client_app(folder: Path, fails: int | None = None) -> Any:
    """A client app for the Message API; partition `fails` raises in round 2."""
    from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp

    app = ClientApp()

    @app.train()
    def train_message(message: Message, context: Any) -> Message:
        partition = int(context.node_config["partition-id"])
        number = int(message.content["config"]["server-round"])
        if partition == fails and number == 2:
            raise RuntimeError("this client is unwell")
        before = {name: array.numpy() for name, array in message.content["arrays"].items()}
        after = train(before, partition)
        keep(folder, number, partition, before, after)
        # A record of numpy arrays keeps its order only by name.
        arrays = ArrayRecord({name: _array(after[name]) for name in before})
        metrics = MetricRecord({"num-examples": 100 + partition, "partition-id": partition})
        return Message(content=RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    return app


def legacy_client_app(folder: Path) -> Any:
    """A client app for the older API: nameless arrays."""
    from flwr.client import NumPyClient
    from flwr.clientapp import ClientApp

    class Client(NumPyClient):  # type: ignore[misc]
        def __init__(self, partition: int) -> None:
            self.partition = partition

        def fit(self, parameters: list[Any], config: dict[str, Any]) -> tuple[list[Any], int, dict[str, Any]]:
            before = dict(zip(("weight", "bias", "steps"), parameters, strict=True))
            after = train(before, self.partition)
            keep(folder, int(config["round"]), self.partition, before, after)
            return list(after.values()), 100 + self.partition, {"partition-id": self.partition}

    def client(context: Any) -> Any:
        return Client(int(context.node_config["partition-id"])).to_client()

    return ClientApp(client_fn=client)


def _array(values: NDArray[Any]) -> Any:
    from flwr.app import Array

    return Array(np.asarray(values))
