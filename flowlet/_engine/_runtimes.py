"""Background event loops: one for each backend, in a daemon thread, started when first needed."""

from __future__ import annotations

import threading
from typing import Any

from ._loops import Port, Waiter, require, serve


class _Runtime:
    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.port: Port | None = None
        self._waiter: Waiter | None = None
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"flowlet {backend} loop", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            serve(self.backend, self._opened, self._closing)
        except BaseException as exc:  # noqa: BLE001 -- handed on to whoever starts it
            self._error = exc
        finally:
            self._ready.set()

    def _closing(self, _: Port, waiter: Waiter) -> None:
        self._waiter = waiter

    def _opened(self, port: Port) -> None:
        self.port = port
        self._ready.set()

    def stop(self) -> None:
        if self._waiter is not None:
            self._waiter.wake()


class Runtimes:
    """The background loops of this process, by backend."""

    def __init__(self) -> None:
        self._by_backend: dict[str, _Runtime] = {}
        self._lock = threading.Lock()  # not the process's: the new loop's thread needs that one

    def port(self, backend: str) -> Port:
        """The way into the background loop of *backend*.

        Raises:
            ConfigError: the backend is not installed.
        """
        runtime = self._by_backend.get(backend)
        if runtime is None or runtime.port is None or runtime.port.closed:
            require(backend)
            with self._lock:
                runtime = self._by_backend.get(backend)
                if runtime is None or runtime.port is None or runtime.port.closed:
                    runtime = _Runtime(backend)
                    runtime.start()
                    self._by_backend[backend] = runtime
        assert runtime.port is not None
        return runtime.port

    def owns(self, port: Any) -> bool:
        """Whether *port* leads to a background loop in use."""
        return any(runtime.port is port for runtime in self._by_backend.values())

    def retire(self, port: Any) -> None:
        """Give later runs a fresh loop in place of *port*'s, and end that one when it listens again."""
        with self._lock:
            for backend, runtime in list(self._by_backend.items()):
                if runtime.port is port:
                    del self._by_backend[backend]
                    runtime.stop()
