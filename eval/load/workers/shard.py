"""One sender's part of an open loop."""

from __future__ import annotations

from dataclasses import dataclass, replace

from eval.adapters.adapter import Adapter
from eval.load.client import Client, RequestSpec
from eval.samples.model import PAUSED, Sample
from eval.targets.access import Access
from eval.targets.sagemaker.signer import Signer
from eval.targets.tokens import Scrubber, Token

LOCAL = "local"  # this machine, among those that send


@dataclass(frozen=True)
class Shard:
    """One worker's part of an open loop, with everything that it needs."""

    target_name: str
    url: str
    classes: tuple[str, ...]
    timeout_s: float
    token: Token | None
    scrub: Scrubber
    no_connection_reuse: bool
    keepalive_s: float
    max_in_flight: int
    requests: tuple[RequestSpec, ...]
    offsets_s: tuple[float, ...]
    adapter: Adapter | None = None
    access: Access | None = None
    signer: Signer | None = None

    def client(self, run_start: float) -> Client:
        """A client of its target. run_start: the time.perf_counter() of the start of the run."""
        return Client(
            self.target_name, self.url, self.classes, self.timeout_s, run_start, self.token,
            scrub=self.scrub, max_connections=self.max_in_flight, no_connection_reuse=self.no_connection_reuse,
            keepalive_s=self.keepalive_s, adapter=self.adapter, access=self.access, signer=self.signer,
        )  # fmt: skip

    def matches_request(self, sample: Sample, request: RequestSpec) -> bool:
        """Whether a worker's sample can be one of that request. It comes from a machine that is not trusted."""
        probabilities = sample.probabilities
        return (
            sample.target == self.target_name
            and sample.phase in (request.phase, PAUSED)
            and (sample.scenario, sample.block, sample.index_in_block, sample.image_index, sample.rate_rps)
            == (request.scenario, request.block_number, request.index_in_block, request.image_index, request.rate_rps)
            and (sample.error is not None or sample.latency_ms > 0)
            and (sample.predicted_class or 0) < len(self.classes)
            and (probabilities is None or len(probabilities) == len(self.classes))
        )


def split(shard: Shard, worker_count: int) -> list[Shard]:
    """Split round-robin: each worker gets every nth request and its part of the requests in flight."""
    in_flight_per_worker = max(1, shard.max_in_flight // worker_count)
    return [
        replace(
            shard,
            requests=shard.requests[i::worker_count],
            offsets_s=shard.offsets_s[i::worker_count],
            max_in_flight=in_flight_per_worker,
        )
        for i in range(worker_count)
    ]
