"""Flower's older API (`flwr.server.strategy`, `aggregate_fit`): record what clients send, filter it in the loop.

    strategy = RecordingStrategy(FedAvg(), "runs/mnist", trusted=["3", "7"], client_id="partition-id")

The older API sends nameless arrays: they are called "000", "001", … in the order sent, unless `names` says otherwise. A
client is known by its proxy's `cid`, or by what `client_id` says: the key of a metric in its result, or a function of
(proxy, result). For the Message API see `encagg_cli.integrations.flower`.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.common import parameters_to_ndarrays
from flwr.server.strategy import Strategy

from encagg_cli.integrations.intake import Intake, Tensors, Upload

if TYPE_CHECKING:
    from flwr.common import EvaluateIns, EvaluateRes, FitIns, FitRes, Parameters, Scalar
    from flwr.server.client_manager import ClientManager
    from flwr.server.client_proxy import ClientProxy

    from encagg_cli.capture.recorder import Recorder
    from encagg_cli.filters import Filter

    Results = list[tuple[ClientProxy, FitRes]]
    Failures = list[tuple[ClientProxy, FitRes] | BaseException]
    Aggregate = tuple[Parameters | None, dict[str, Scalar]]

logger = logging.getLogger("encagg")


class _Wrapper(Strategy):
    """A strategy that delegates to another and sees what is sent out and what comes back from fitting."""

    def __init__(
        self,
        strategy: Strategy,
        intake: Intake,
        client_id: "str | Callable[[ClientProxy, FitRes], object] | None",
        names: Sequence[str] | None,
    ) -> None:
        self.strategy = strategy
        self.intake = intake
        self._client_id = client_id
        self._names = names
        self._sent: dict[str, Tensors] = {}
        self._global_model: Tensors = {}

    def initialize_parameters(self, client_manager: "ClientManager") -> "Parameters | None":
        return self.strategy.initialize_parameters(client_manager)

    def configure_fit(
        self, server_round: int, parameters: "Parameters", client_manager: "ClientManager"
    ) -> "list[tuple[ClientProxy, FitIns]]":
        instructions: list[tuple[ClientProxy, FitIns]] = self.strategy.configure_fit(
            server_round, parameters, client_manager
        )
        self._global_model = self._tensors(parameters)
        by_parameters: dict[int, Tensors] = {id(parameters): self._global_model}
        self._sent = {}
        for proxy, fit in instructions:
            key = id(fit.parameters)
            if key not in by_parameters:
                by_parameters[key] = self._tensors(fit.parameters)
            self._sent[proxy.cid] = by_parameters[key]
        return instructions

    def configure_evaluate(
        self, server_round: int, parameters: "Parameters", client_manager: "ClientManager"
    ) -> "list[tuple[ClientProxy, EvaluateIns]]":
        instructions: list[tuple[ClientProxy, EvaluateIns]] = self.strategy.configure_evaluate(
            server_round, parameters, client_manager
        )
        return instructions

    def aggregate_evaluate(
        self,
        server_round: int,
        results: "list[tuple[ClientProxy, EvaluateRes]]",
        failures: "list[tuple[ClientProxy, EvaluateRes] | BaseException]",
    ) -> "tuple[float | None, dict[str, Scalar]]":
        aggregate: tuple[float | None, dict[str, Scalar]] = self.strategy.aggregate_evaluate(
            server_round, results, failures
        )
        return aggregate

    def evaluate(self, server_round: int, parameters: "Parameters") -> "tuple[float, dict[str, Scalar]] | None":
        return self.strategy.evaluate(server_round, parameters)

    def close(self) -> None:
        """Publish what the recorder still holds; call it when the federation has ended."""
        self.intake.close()

    def _take(self, server_round: int, results: "Results") -> frozenset[str]:
        """Record and judge the results; returns the `cid`s of the accepted clients."""
        uploads: list[Upload] = []
        proxies: dict[str, str] = {}
        for proxy, result in results:
            client = self._name(proxy, result)
            sent = self._sent.get(proxy.cid, self._global_model)
            uploads.append(Upload(client, self._tensors(result.parameters), sent, int(result.num_examples)))
            proxies.setdefault(client, proxy.cid)
        accepted = self.intake.take(server_round, uploads, self._global_model)
        return frozenset(cid for client, cid in proxies.items() if client in accepted)

    def _name(self, proxy: "ClientProxy", result: "FitRes") -> str:
        if callable(self._client_id):
            return str(self._client_id(proxy, result))
        if self._client_id is not None:
            if self._client_id in result.metrics:
                return str(result.metrics[self._client_id])
            logger.warning("a result carries no metric %r; its cid is used", self._client_id)
        return str(proxy.cid)

    def _tensors(self, parameters: "Parameters") -> Tensors:
        arrays: list[Any] = parameters_to_ndarrays(parameters)
        names = self._names if self._names is not None else [f"{index:03d}" for index in range(len(arrays))]
        if len(names) != len(arrays):
            return {}
        return dict(zip(names, arrays, strict=True))


class RecordingStrategy(_Wrapper):
    """Records every client's update and leaves the wrapped strategy to do what it does."""

    def __init__(
        self,
        strategy: Strategy,
        recorder: "Recorder | str | Path",
        *,
        trusted: Collection[object] = (),
        client_id: "str | Callable[[ClientProxy, FitRes], object] | None" = None,
        names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(strategy, Intake.of(recorder=recorder, method=None, trusted=trusted), client_id, names)

    def aggregate_fit(self, server_round: int, results: "Results", failures: "Failures") -> "Aggregate":
        self._take(server_round, results)
        aggregate: Aggregate = self.strategy.aggregate_fit(server_round, results, failures)
        return aggregate


class FilteringStrategy(_Wrapper):
    """Lets a filter judge every round, and the wrapped strategy aggregate what it accepts.

    Settings are those of `encagg_cli.integrations.flower.FilteringStrategy`.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        method: "str | Filter",
        trusted: Collection[object] = (),
        recorder: "Recorder | str | Path | None" = None,
        client_id: "str | Callable[[ClientProxy, FitRes], object] | None" = None,
        names: Sequence[str] | None = None,
        equal_weights: bool = False,
    ) -> None:
        super().__init__(strategy, Intake.of(recorder=recorder, method=method, trusted=trusted), client_id, names)
        self._equal_weights = equal_weights

    def aggregate_fit(self, server_round: int, results: "Results", failures: "Failures") -> "Aggregate":
        accepted = self._take(server_round, results)
        kept = [(proxy, result) for proxy, result in results if proxy.cid in accepted]
        if self._equal_weights:
            for _, result in kept:
                result.num_examples = 1
        aggregate: Aggregate = self.strategy.aggregate_fit(server_round, kept, failures)
        return aggregate
