"""Numbers for Prometheus, in a registry of their own."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from tunewright.errors import MissingExtra
from tunewright.serve.limits import Gate
from tunewright.text import _

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Raises MissingExtra without prometheus_client."""

    def __init__(self, gate: Gate) -> None:
        if find_spec("prometheus_client") is None:
            raise MissingExtra("prometheus-client", "serve", _("the endpoint"))
        import prometheus_client as prometheus

        self._library = prometheus
        self.registry = prometheus.CollectorRegistry()
        here: dict[str, Any] = {"namespace": "tunewright", "registry": self.registry}
        self.requests = prometheus.Counter(
            "requests", "Requests by path, status and model.", ["path", "status", "model"], **here
        )
        self.tokens = prometheus.Counter("tokens", "Tokens read (prompt) and written.", ["kind", "model"], **here)
        self.first_token = prometheus.Histogram(
            "first_token_seconds", "From the request to the first token.", ["model"], buckets=SECONDS, **here
        )
        self.seconds = prometheus.Histogram(
            "request_seconds", "From the request to the end of the response.", ["path"], buckets=SECONDS, **here
        )
        prometheus.Gauge("running", "Answers being written.", **here).set_function(lambda: gate.running)
        prometheus.Gauge("waiting", "Answers that wait for a place.", **here).set_function(lambda: gate.waiting)

    def page(self) -> tuple[bytes, str]:
        """The page, and its content type."""
        return self._library.generate_latest(self.registry), self._library.CONTENT_TYPE_LATEST
