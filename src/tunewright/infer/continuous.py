"""Many answers at once through transformers' continuous batching, each with its own adapter, sampling and grammar.

transformers schedules: which requests take part in the next step, how much of a long prompt, where their keys and
values lie. What is ours sits at two places that it offers: the list of logits processors, which is told which requests
are in a batch before the model runs (there tokens get their adapters) and is given the logits behind it (there each
request's next token is chosen); and the router of results, which hands each token to who waits for it.

Prompts that begin alike are not shared between requests: transformers finds them by their ids alone, and the same ids
have other keys and values under another adapter.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedModel
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessorList
from transformers.generation.continuous_batching.continuous_api import ContinuousBatchingManager, OutputRouter
from transformers.generation.continuous_batching.requests import FutureRequestState, GenerationOutput
from transformers.generation.logits_process import LogitsProcessorList

from tunewright.errors import TunewrightError
from tunewright.infer import decoding
from tunewright.infer.adapters import Adapters
from tunewright.infer.grammar import Grammars
from tunewright.infer.live import Ask, End, Step
from tunewright.infer.sampling import Sampler
from tunewright.infer.threads import quickest
from tunewright.model.load import quiet
from tunewright.text import _

PAGE = 64  # tokens of a page of the cache: an answer wastes half of one
MOST_TOGETHER = 32  # requests in a batch
FEW = 64  # tokens of a step in which nobody's prompt is read
PREFILL = 512  # tokens of prompts and answers in one step


@dataclass
class _Place:
    """A request under way: who waits for its tokens, and how they are chosen. given: tokens handed over so far.
    failed: no token could be chosen, and who waits was told."""

    sampler: Sampler
    loop: asyncio.AbstractEventLoop
    steps: asyncio.Queue[Step | Exception] = field(default_factory=asyncio.Queue)
    given: int = 0
    failed: bool = False

    @property
    def ask(self) -> Ask:
        return self.sampler.ask

    def __deepcopy__(self, _memo: dict[int, Any]) -> _Place:
        """transformers copies a request that it sets aside for want of room; who waits for it stays the same."""
        return self

    def choose(self, row: torch.Tensor) -> int:
        """(V,) -> the next token. What cannot be chosen (a grammar that has no way on) is the end of this answer alone:
        an exception here would be the end of the engine, and of all that it is answering."""
        if not self.failed:
            try:
                return self.sampler(row)
            except Exception as error:
                self.failed = True
                self.put(_failure(error))
        return 0  # read by nobody

    def put(self, item: Step | Exception) -> None:
        self.loop.call_soon_threadsafe(self.steps.put_nowait, item)


class ContinuousEngine:
    """A ``LiveEngine``. context: tokens of a prompt and its answer.  memory: bytes that keys and values may take."""

    def __init__(
        self, model: PreTrainedModel, context: int, memory: int, grammars: Grammars | None = None, adapters: int = 8
    ) -> None:
        self.adapters = Adapters(model, adapters, self._still)
        self.grammars = grammars
        self.model, self.memory = model, memory
        self.most_tokens = max(PREFILL, memory // bytes_a_token(model))
        self.context = min(context, self.most_tokens)
        self._numbers = itertools.count()
        self._places: dict[str, _Place] = {}
        self._lock = threading.Lock()
        self._manager: ContinuousBatchingManager | None = None
        self._closed = False
        self._threads = (quickest(model), torch.get_num_threads())

    def offer(self, adapter: str, folder: Path) -> None:
        self.adapters.offer(adapter, folder)

    async def answer(self, ask: Ask) -> AsyncIterator[Step]:
        place = _Place(Sampler(ask, self.grammars, self.model.device), asyncio.get_running_loop())
        name, over = f"request-{next(self._numbers)}", False
        async with self._holding(ask.adapter):
            self._places[name] = place
            try:
                while not _add(await asyncio.to_thread(self._running), name, place):
                    pass  # a step has failed just now; it begins again
                while not over:
                    step = await place.steps.get()
                    if isinstance(step, Exception):
                        over = not place.failed
                        raise step
                    over = step.end is not None
                    yield step
            finally:
                del self._places[name]
                manager = self._manager
                if not over and manager is not None:
                    manager.cancel_request(name)

    @contextlib.asynccontextmanager
    async def _holding(self, adapter: str | None) -> AsyncIterator[None]:
        """The adapter stays in memory. It may have to be read, in a thread, which goes on when the client leaves."""
        if adapter is None:
            yield
            return
        held = asyncio.ensure_future(asyncio.to_thread(self.adapters.hold, adapter))

        def let_go(done: asyncio.Future[None]) -> None:
            if not done.cancelled() and done.exception() is None:
                self.adapters.release(adapter)

        try:
            await asyncio.shield(held)
            yield
        finally:
            let_go(held) if held.done() else held.add_done_callback(let_go)

    def close(self) -> None:
        """Finishes what is being answered. A manager that is just being begun is waited for: left alone, its thread
        would keep the process from ever ending."""
        with self._lock:
            self._closed = True
            manager, self._manager = self._manager, None
        if manager is not None:
            with quiet():
                manager.stop(block=True)

    @contextlib.contextmanager
    def _still(self) -> Iterator[None]:
        """Between two steps."""
        with self._lock:
            manager = self._manager
            pause = manager.pause() if manager is not None and manager.is_running() else contextlib.nullcontext()
            with pause:
                yield

    def _running(self) -> ContinuousBatchingManager:
        """The manager, begun on first use, so that a model that nobody asks takes no room for keys and values; and
        again after a step that failed, of which those that it was answering were told."""
        with self._lock:
            if self._closed:
                raise TunewrightError(_("the engine has stopped"), do=_("start the server again"))
            if self._manager is None:
                self._manager = self._begin()
            elif self._manager.background_thread_status.can_accept_new_requests() is not None:
                self._manager.join(time.perf_counter())
                self._manager.start()
            return self._manager

    def _begin(self) -> ContinuousBatchingManager:
        config = ContinuousBatchingConfig(
            page_size=PAGE, num_blocks=self.most_tokens // PAGE, max_batch_tokens=PREFILL,
            max_requests_per_batch=MOST_TOGETHER, allow_block_sharing=False,
            use_async_batching=False, use_cuda_graph=False,  # tokens are chosen in Python, request by request
        )  # fmt: skip
        with quiet():
            manager = ContinuousBatchingManager(self.model, GenerationConfig(do_sample=False, eos_token_id=-1), config)
            manager.logit_processor = _Choosing(self.adapters, self._threads)
            manager.output_router = _Router(self._places)
            manager.warmup()  # makes the cache and the masks, for which the model still has to attend as it was loaded
            if self.model.device.type == "cpu" and self.model.config._attn_implementation == "sdpa":
                decoding.use(self.model)
            manager.start()
        return manager


def bytes_a_token(model: PreTrainedModel) -> int:
    """What a token's keys and values take."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * size * model.dtype.itemsize)


def _add(manager: ContinuousBatchingManager, name: str, place: _Place) -> bool:
    """Whether it was taken."""
    ask = place.ask
    added = manager.add_request(
        list(ask.prompt), request_id=name, max_new_tokens=ask.max_new_tokens, streaming=True,
        eos_token_id=sorted(ask.stops), place=place,
    )  # fmt: skip
    return added is not None


def _failure(why: object) -> TunewrightError:
    return TunewrightError(_("the engine failed: {why}", why=why))


class _Choosing(ContinuousBatchingLogitsProcessorList):
    """Told of each batch before and after the model runs on it."""

    def __init__(self, adapters: Adapters, threads: tuple[int, int]) -> None:
        """threads: for steps of few tokens, and for others."""
        super().__init__(LogitsProcessorList())
        self.do_processing = True
        self.adapters, self.threads = adapters, threads
        self.choosing: list[_Place] = []

    def check_kwargs(self, kwargs: dict[str, Any]) -> None:
        """``place`` is the only one, and comes from us."""

    def prepare_tensor_args(self, requests_in_batch: list[FutureRequestState], arg_storage: Any) -> Any:
        spans = []
        for request in requests_in_batch:
            place: _Place = request.state.logit_processor_kwargs["place"]
            spans.append((place.ask.adapter, request.query_length))
        self.adapters.route(spans)
        wanted = self.threads[sum(tokens for _adapter, tokens in spans) > FEW]
        if torch.get_num_threads() != wanted:
            torch.set_num_threads(wanted)
        self.choosing = [r.state.logit_processor_kwargs["place"] for r in requests_in_batch if r.has_new_token]
        return arg_storage

    def __call__(self, input_ids: Any, scores: torch.Tensor, logits_processor_args: Any) -> torch.Tensor:
        """scores: (requests, V) fp32. What comes back has each request's token as its largest entry."""
        plain = scores
        for number, place in enumerate(self.choosing):
            if place.sampler.is_plain:
                continue
            token = place.choose(plain[number])
            if scores is plain:
                scores = plain.clone()
            scores[number, token] = torch.inf
        return scores


class _Router(OutputRouter):
    """Each token to who waits for it."""

    def __init__(self, places: dict[str, _Place]) -> None:
        super().__init__()
        self.places = places

    def deliver(self, output: GenerationOutput) -> None:
        self.deliver_batch([output])

    def deliver_batch(self, outputs: Sequence[GenerationOutput]) -> None:
        for output in outputs:
            place = self.places.get(output.request_id)
            if place is None or place.failed:  # its client left in this very step, or was told that it failed
                continue
            if output.error is not None:
                place.put(_failure(output.error))
                continue
            tokens = output.generated_tokens
            for number in range(place.given, len(tokens)):
                last = output.is_finished() and number == len(tokens) - 1
                end: End | None = None if not last else "stop" if tokens[number] in place.ask.stops else "length"
                logprob, top = place.sampler.scored[number] if place.sampler.scored else (None, ())
                place.put(Step(tokens[number], end, logprob, top))
            place.given = len(tokens)
