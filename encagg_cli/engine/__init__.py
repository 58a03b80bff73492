"""Where work runs: threads or processes of this machine, or Dask; a `concurrent.futures.Executor` each."""

from encagg_cli.engine.base import Engine, in_order
from encagg_cli.engine.blas import one_blas_thread
from encagg_cli.engine.choice import ENGINES, EngineName, available_cores, open_engine

__all__ = ["ENGINES", "Engine", "EngineName", "available_cores", "in_order", "one_blas_thread", "open_engine"]
