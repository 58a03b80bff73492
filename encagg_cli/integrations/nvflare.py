"""NVFlare (>= 2.7): a model aggregator that records what clients send, and can filter it before it is aggregated.

    recipe = NumpyFedAvgRecipe(…, aggregator=RecordingAggregator(run="/data/runs/mnist", trusted=["site-1", "site-2"]))

A client is known by its site's name. NVFlare builds components from a job's configuration, so all settings are plain
values; sites that allow only listed component classes must list this one.
"""

import logging
from typing import Any

import numpy as np
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.abstract.model import ModelLearnableKey
from nvflare.app_common.aggregators.model_aggregator import ModelAggregator
from nvflare.app_common.app_constant import AppConstants

from encagg_cli.errors import UsageError
from encagg_cli.integrations.intake import Intake, Tensors, Upload

logger = logging.getLogger("encagg")


class MeanAggregator(ModelAggregator):
    """The unweighted mean of the models it accepts (EnCAgg eq. 15: a claimed sample count can be faked)."""

    def __init__(self) -> None:
        super().__init__()
        self._models: list[FLModel] = []

    def accept_model(self, model: FLModel) -> None:
        self._models.append(model)

    def aggregate_model(self) -> FLModel:
        first = self._models[0]
        mean: dict[str, Any] = {}
        for name, tensor in first.params.items():
            values = np.mean([_array(model.params[name]).astype(np.float64) for model in self._models], axis=0)
            mean[name] = values.astype(_array(tensor).dtype)
        return FLModel(params=mean, params_type=first.params_type, current_round=first.current_round)

    def reset_stats(self) -> None:
        self._models = []


class RecordingAggregator(ModelAggregator):
    """Records the round's updates, lets a filter judge them where `method` names one, and delegates the rest.

    run         path of the run to write; nothing is recorded without
    aggregator  the NVFlare `ModelAggregator` that gets the accepted models; the unweighted mean without
    method      a filter's text, such as "encagg" or "multi-krum(f=2)"; every model is accepted without
    trusted     names of the known-benign sites

    Models arrive one by one, and a filter needs all of them: they are held until the round is aggregated. Where a
    client sends a whole model, its update is the difference from the global model of the round's start. Where nothing
    is accepted, the global model stays as it is.
    """

    def __init__(
        self,
        run: str | None = None,
        aggregator: ModelAggregator | None = None,
        method: str | None = None,
        trusted: list[str] | None = None,
    ) -> None:
        super().__init__()
        if run is None and method is None:
            raise UsageError("a RecordingAggregator needs a run to record, a method to filter with, or both")
        self.run = run
        self.aggregator = aggregator
        self.method = method
        self.trusted = trusted
        self._delegate = aggregator if aggregator is not None else MeanAggregator()
        self._intake: Intake | None = None
        self._models: list[FLModel] = []

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        super().handle_event(event_type, fl_ctx)
        self._delegate.handle_event(event_type, fl_ctx)
        if event_type == EventType.END_RUN:
            self.close()

    def accept_model(self, model: FLModel) -> None:
        self._models.append(model)

    def aggregate_model(self) -> FLModel:
        before = self._global_model()
        accepted = self._take(before)
        kept = [model for model in self._models if _site(model) in accepted]
        if not kept:
            logger.warning("no upload of this round is accepted: the model stays as it is")
            params = dict(before) if self._models[0].params_type == ParamsType.FULL else _zeros(self._models[0].params)
            return FLModel(params=params, params_type=self._models[0].params_type)
        for model in kept:
            self._delegate.accept_model(model)
        aggregated: FLModel = self._delegate.aggregate_model()
        return aggregated

    def reset_stats(self) -> None:
        self._models = []
        self._delegate.reset_stats()

    def close(self) -> None:
        """Publish what the recorder still holds; NVFlare's end of a run does it too."""
        if self._intake is not None:
            self._intake.close()

    def _take(self, before: Tensors) -> frozenset[str]:
        if self._intake is None:
            self._intake = Intake.of(recorder=self.run, method=self.method, trusted=self.trusted or ())
        number = self.fl_ctx.get_prop(AppConstants.CURRENT_ROUND)
        uploads = [
            Upload(
                _site(model),
                {name: _array(tensor) for name, tensor in model.params.items()},
                None if model.params_type == ParamsType.DIFF else before,
            )
            for model in self._models
        ]
        return self._intake.take(number, uploads, before or _zeros(self._models[0].params))

    def _global_model(self) -> Tensors:
        """The model that the round started from, as NVFlare's controllers keep it for their components."""
        model = self.fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)
        weights = model[ModelLearnableKey.WEIGHTS] if model else {}
        return {name: _array(tensor) for name, tensor in weights.items()}


def _site(model: FLModel) -> str:
    return str((model.meta or {}).get("client_name", "?"))


def _array(tensor: Any) -> Any:
    """A numpy array of a tensor, torch's included."""
    return tensor.detach().cpu().numpy() if hasattr(tensor, "detach") else np.asarray(tensor)


def _zeros(tensors: Tensors) -> dict[str, Any]:
    return {name: np.zeros_like(_array(tensor)) for name, tensor in tensors.items()}
