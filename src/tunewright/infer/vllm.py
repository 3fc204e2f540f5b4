"""vLLM as an engine, where it is installed: for a GPU and many clients.

Written against vLLM 0.33's ``AsyncLLM``, and held by a test that runs where vLLM is installed; the machines that this
project is made on have no GPU, and it has not been run on them. Ids, stops and adapters are the run's own, as with
every engine; vLLM chooses the tokens.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tunewright.errors import ResourceError, TunewrightError
from tunewright.infer.live import Ask, Step
from tunewright.text import _

MOST_RANK = 256  # of an adapter; vLLM makes room for it beforehand


def require_package() -> None:
    """Raises ResourceError."""
    if find_spec("vllm") is None:
        raise ResourceError(
            _("the engine vllm needs the package vllm, which is not installed"),
            do=_("install it as its own pages say; its build depends on the GPU"), command="pip install vllm",
        )  # fmt: skip


class VllmEngine:
    """A ``LiveEngine``. model: a folder in transformers' layout.  rank: the largest of an adapter on it, 0 if there is
    to be none."""

    def __init__(self, model: Path, dtype: str, context: int, adapters: int = 8, rank: int = 64) -> None:
        require_package()
        import vllm
        from vllm.lora.request import LoRARequest
        from vllm.v1.engine.async_llm import AsyncLLM

        self.context = context
        self.library, self.request = vllm, LoRARequest
        lora = {"enable_lora": True, "max_loras": adapters, "max_lora_rank": min(rank, MOST_RANK)} if rank else {}
        arguments = vllm.AsyncEngineArgs(
            model=str(model), skip_tokenizer_init=True, dtype=dtype, max_model_len=context, trust_remote_code=False,
            disable_log_stats=True, **lora,
        )  # fmt: skip
        self.engine: Any = AsyncLLM.from_engine_args(arguments)
        self.adapters: dict[str, Any] = {}
        self._numbers = itertools.count()

    def offer(self, adapter: str, folder: Path) -> None:
        self.adapters[adapter] = self.request(adapter, len(self.adapters) + 1, str(folder))

    async def answer(self, ask: Ask) -> AsyncIterator[Step]:
        outputs = self.engine.generate(
            {"prompt_token_ids": list(ask.prompt)}, self._parameters(ask), f"request-{next(self._numbers)}",
            lora_request=None if ask.adapter is None else self.adapters[ask.adapter],
        )  # fmt: skip
        try:
            async for output in outputs:
                one = output.outputs[0]
                for number, token in enumerate(one.token_ids):
                    last = one.finish_reason is not None and number == len(one.token_ids) - 1
                    yield self._step(ask, token, one, number, last)
        except (RuntimeError, ValueError) as error:
            raise TunewrightError(_("the engine failed: {why}", why=error)) from error
        finally:
            await outputs.aclose()  # which also ends a request whose client left

    def close(self) -> None:
        self.engine.shutdown()

    def _parameters(self, ask: Ask) -> Any:
        form = None
        if ask.grammar is not None:
            schema = json.loads(ask.grammar)["grammars"][0]["json_schema"]
            schema.pop("x-guidance", None)
            form = self.library.sampling_params.StructuredOutputsParams(json=schema)
        return self.library.SamplingParams(
            temperature=ask.temperature, top_p=ask.top_p, seed=ask.seed, max_tokens=ask.max_new_tokens,
            stop_token_ids=sorted(ask.stops), ignore_eos=True, detokenize=False, logprobs=ask.top_logprobs,
            structured_outputs=form, output_kind=self.library.sampling_params.RequestOutputKind.DELTA,
        )  # fmt: skip

    @staticmethod
    def _step(ask: Ask, token: int, output: Any, number: int, last: bool) -> Step:
        end: Any = None if not last else "stop" if token in ask.stops else "length"
        if ask.top_logprobs is None or output.logprobs is None:
            return Step(token, end)
        known = output.logprobs[number]  # token -> its Logprob, the likeliest and the chosen one
        best = sorted(known.items(), key=lambda item: -item[1].logprob)[: ask.top_logprobs]
        return Step(token, end, known[token].logprob, tuple((other, found.logprob) for other, found in best))
