"""What the server counts, in Prometheus' format."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from powerbench.types import Cost

SECONDS = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)
"""Upper bounds of the histogram's buckets."""


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "powerbench_requests",
            "HTTP requests answered.",
            ["path", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "powerbench_request_seconds",
            "From a request's arrival to the end of its answer.",
            ["path"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._chains = Counter(
            "powerbench_chains",
            "Chains by how they ended: completed, failed or withdrawn.",
            ["sampler", "end"],
            registry=self.registry,
        )
        self._tokens = Counter(
            "powerbench_tokens",
            "Tokens of prompts and answers, and what these cost: decoded, prefilled, speculated (decoded ahead "
            "and thrown away), withdrawn (decoded for chains that were withdrawn).",
            ["kind"],
            registry=self.registry,
        )

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """Show a number that is read when it is asked for."""
        Gauge(f"powerbench_{name}", what, registry=self.registry).set_function(value)

    def request(self, path: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def completed(self, sampler: str, prompt: int, tokens: int, cost: Cost) -> None:
        """A chain has ended, with so many tokens of prompt and answer."""
        self._chains.labels(sampler, "completed").inc()
        counts = {
            "prompt": prompt,
            "completion": tokens,
            "decoded": cost.decoded,
            "prefilled": cost.prefilled,
            "speculated": cost.speculated,
        }
        for kind, count in counts.items():
            self._tokens.labels(kind).inc(count)

    def failed(self, sampler: str) -> None:
        """A chain has raised an error."""
        self._chains.labels(sampler, "failed").inc()

    def withdrawn(self, sampler: str, decoded: int) -> None:
        """A chain was withdrawn, after so many tokens."""
        self._chains.labels(sampler, "withdrawn").inc()
        self._tokens.labels("withdrawn").inc(decoded)

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self.registry)
