"""Workers of a Dask cluster, which all see the run under the same path."""

from concurrent.futures import Executor
from typing import Any

from encagg_cli.engine.base import Engine
from encagg_cli.errors import UsageError

_RETRIES = 3  # of a task whose worker died; Dask runs it again elsewhere
_CONNECT_SECONDS = 10


class Dask(Engine):
    """A cluster behind `scheduler` (its address), or a local one of as many processes where none is given."""

    in_process = False

    def __init__(self, scheduler: str | None, workers: int) -> None:
        try:
            from distributed import Client, LocalCluster
        except ImportError as error:
            raise UsageError("--engine dask needs Dask", hint="pip install distributed") from error
        self._cluster: Any = None
        if scheduler is None:
            self._cluster = LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0
            )
        try:
            self._client = Client(self._cluster or scheduler, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            self._close_cluster()
            raise UsageError(
                f"no Dask scheduler answers at {scheduler}", hint="start one: dask scheduler; then dask worker ADDRESS"
            ) from error
        threads = sum(self._client.nthreads().values())
        if not threads:
            self.close()
            raise UsageError(
                f"the Dask scheduler at {scheduler} has no workers", hint="start some: dask worker ADDRESS"
            )
        self.workers = threads
        self._executor: Executor = self._client.get_executor(pure=False, retries=_RETRIES)

    @property
    def executor(self) -> Executor:
        return self._executor

    def close(self) -> None:
        self._client.close()
        self._close_cluster()

    def _close_cluster(self) -> None:
        if self._cluster is not None:
            self._cluster.close()
