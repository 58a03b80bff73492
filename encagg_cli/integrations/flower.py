"""Flower's Message API (flwr >= 1.21, `flwr.serverapp.strategy`): record what clients send, filter it in the loop.

    strategy = RecordingStrategy(FedAvg(), "runs/mnist", trusted=["3", "7"], client_id="partition-id")
    strategy = FilteringStrategy(FedAvg(), method="encagg", trusted=["3", "7"], client_id="partition-id")

A client is known by its node id, which it cannot choose but a simulation draws anew; `client_id` names a metric of
the reply that holds a stable id (a partition id, say), or is a function of the reply. A client can lie about what it
sends: rely on such ids only where clients cannot pass for one another.
"""

import logging
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.serverapp.strategy import Strategy

from encagg_cli.integrations.intake import Intake, Tensors, Upload

if TYPE_CHECKING:
    from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
    from flwr.serverapp import Grid

    from encagg_cli.capture.recorder import Recorder
    from encagg_cli.filters import Filter

logger = logging.getLogger("encagg")


class _Wrapper(Strategy):
    """A strategy that delegates to another and sees what is sent out and what comes back from training."""

    def __init__(
        self,
        strategy: Strategy,
        intake: Intake,
        client_id: "str | Callable[[Message], object] | None",
        weighted_by_key: str | None,
    ) -> None:
        self.strategy = strategy
        self.intake = intake
        self._client_id = client_id
        self._weighted_by_key = weighted_by_key or getattr(strategy, "weighted_by_key", "num-examples")
        self._sent: dict[int, Tensors] = {}
        self._global_model: Tensors = {}

    def configure_train(
        self, server_round: int, arrays: "ArrayRecord", config: "ConfigRecord", grid: "Grid"
    ) -> "Iterable[Message]":
        messages = list(self.strategy.configure_train(server_round, arrays, config, grid))
        self._global_model = _tensors(arrays)
        by_record: dict[int, Tensors] = {}  # usually one record, shared by all messages: unpacked once
        self._sent = {}
        for message in messages:
            records = list(message.content.array_records.values())
            if records:
                key = id(records[0])
                if key not in by_record:
                    by_record[key] = _tensors(records[0])
                self._sent[message.metadata.dst_node_id] = by_record[key]
        return messages

    def configure_evaluate(
        self, server_round: int, arrays: "ArrayRecord", config: "ConfigRecord", grid: "Grid"
    ) -> "Iterable[Message]":
        messages: Iterable[Message] = self.strategy.configure_evaluate(server_round, arrays, config, grid)
        return messages

    def aggregate_evaluate(self, server_round: int, replies: "Iterable[Message]") -> "MetricRecord | None":
        return self.strategy.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        self.strategy.summary()

    def start(self, *args: Any, **kwargs: Any) -> Any:
        """Run the federation as Flower does, then publish what the recorder still holds."""
        try:
            return super().start(*args, **kwargs)
        finally:
            self.intake.close()

    def _take(self, server_round: int, replies: "list[Message]") -> frozenset[int]:
        """Record and judge the replies that carry a model; returns the node ids of the accepted ones."""
        uploads: list[Upload] = []
        nodes: dict[str, int] = {}
        for reply in replies:
            if reply.has_error():
                continue
            node = reply.metadata.src_node_id
            client = self._name(reply)
            sent = self._sent.get(node, self._global_model)
            records = list(reply.content.array_records.values())
            reply_tensors = _tensors(records[0]) if len(records) == 1 else {}
            uploads.append(Upload(client, reply_tensors, sent, self._num_examples(reply)))
            nodes.setdefault(client, node)
        accepted = self.intake.take(server_round, uploads, self._global_model)
        return frozenset(node for client, node in nodes.items() if client in accepted)

    def _name(self, reply: "Message") -> str:
        if callable(self._client_id):
            return str(self._client_id(reply))
        if self._client_id is not None:
            for metrics in reply.content.metric_records.values():
                if self._client_id in metrics:
                    value = metrics[self._client_id]
                    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
            logger.warning("a reply carries no metric %r; its node id is used", self._client_id)
        return str(reply.metadata.src_node_id)

    def _num_examples(self, reply: "Message") -> int:
        for metrics in reply.content.metric_records.values():
            if self._weighted_by_key in metrics:
                return int(metrics[self._weighted_by_key])
        return -1

    def _claim_one_example(self, reply: "Message") -> None:
        if not reply.has_error():
            for metrics in reply.content.metric_records.values():
                if self._weighted_by_key in metrics:
                    metrics[self._weighted_by_key] = 1


class RecordingStrategy(_Wrapper):
    """Records every client's update and leaves the wrapped strategy to do what it does.

    `recorder` is a `Recorder`, or the path of a run. The update is the client's reply minus what it was sent, in
    float64 before storage. An error while recording is a warning: it never stops the training (unless the recorder
    given says so).
    """

    def __init__(
        self,
        strategy: Strategy,
        recorder: "Recorder | str | Path",
        *,
        trusted: Collection[object] = (),
        client_id: "str | Callable[[Message], object] | None" = None,
        weighted_by_key: str | None = None,
    ) -> None:
        intake = Intake.of(recorder=recorder, method=None, trusted=trusted)
        super().__init__(strategy, intake, client_id, weighted_by_key)

    def aggregate_train(
        self, server_round: int, replies: "Iterable[Message]"
    ) -> "tuple[ArrayRecord | None, MetricRecord | None]":
        replies = list(replies)  # Flower hands out an iterator, and strategies take arrays out of the replies
        self._take(server_round, replies)
        aggregate: tuple[ArrayRecord | None, MetricRecord | None] = self.strategy.aggregate_train(server_round, replies)
        return aggregate


class FilteringStrategy(_Wrapper):
    """Lets a filter judge every round, and the wrapped strategy aggregate what it accepts.

    `method` is a filter or its text (`"encagg"`, `"multi-krum(f=4)"`); `recorder`, where given, stores all uploads, and
    the filter judges the stored (rounded) values: a replay of the run gives the same verdicts. Where nothing is
    accepted the wrapped strategy gets no replies, and the model stays as it was. `equal_weights` makes every accepted
    reply claim one example: EnCAgg averages without weights (eq. 15), because a claimed sample count can be faked.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        method: "str | Filter",
        trusted: Collection[object] = (),
        recorder: "Recorder | str | Path | None" = None,
        client_id: "str | Callable[[Message], object] | None" = None,
        weighted_by_key: str | None = None,
        equal_weights: bool = False,
    ) -> None:
        intake = Intake.of(recorder=recorder, method=method, trusted=trusted)
        super().__init__(strategy, intake, client_id, weighted_by_key)
        self._equal_weights = equal_weights

    def aggregate_train(
        self, server_round: int, replies: "Iterable[Message]"
    ) -> "tuple[ArrayRecord | None, MetricRecord | None]":
        replies = list(replies)
        accepted = self._take(server_round, replies)
        kept = [reply for reply in replies if reply.has_error() or reply.metadata.src_node_id in accepted]
        if self._equal_weights:
            for reply in kept:
                self._claim_one_example(reply)
        aggregate: tuple[ArrayRecord | None, MetricRecord | None] = self.strategy.aggregate_train(server_round, kept)
        return aggregate


def _tensors(record: "ArrayRecord") -> Tensors:
    """The arrays of a record by name, copied: strategies may change or drop them."""
    return {name: array.numpy().copy() for name, array in record.items()}
