"""The KV cache in pages: exact after any history, however little memory there is, and nothing leaks.

As if on CUDA, with small pages and in float32, which the kernel itself takes neither of.

Run: pytest tests/engines/test_paged.py
"""

from collections.abc import Callable
from dataclasses import replace

import as_cuda
import numpy as np
import pytest
import torch
import varlen_reference
from histories import Histories, close
from tiny import TinyModel, models, run

from powerbench.engines.hf import (
    HFEngine,
    cache_plan,
    kv_cache,
    paged_cache,
    scheduler,
)
from powerbench.engines.hf.paged_cache import PagedCache
from powerbench.engines.hf.prefix_cache import PrefixCache
from powerbench.engines.hf.request import EngineRequest
from powerbench.engines.hf.scheduler import Scheduler
from powerbench.errors import UserError
from powerbench.types import Extend, Tokens

PAGE = 4
Make = Callable[..., HFEngine]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    """Engines with a number of pages of 4 tokens each."""
    as_cuda.pretend(monkeypatch)
    layout = varlen_reference._check_layout

    def any_type(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: object
    ) -> None:
        half = [
            torch.empty_strided(t.shape, t.stride(), dtype=torch.bfloat16, device="meta")
            for t in (query, key, value)
        ]
        layout(*half, *rest)

    monkeypatch.setattr(varlen_reference, "_check_layout", any_type)
    monkeypatch.setattr(varlen_reference, "PAGE_MULTIPLE", PAGE)
    monkeypatch.setattr(paged_cache, "PAGE", PAGE)
    monkeypatch.setattr(scheduler, "GROWTH", 0)
    monkeypatch.setattr(cache_plan, "has_varlen", lambda *arguments: True)

    def make(
        name: str, pages: int, width: int, look: int = 3, draft: int | str = 0, **options: int
    ) -> HFEngine:
        monkeypatch.setattr(
            cache_plan, "plan_pages", lambda most, *arguments: cache_plan.Plan(most, pages)
        )
        model = TinyModel(name)
        options |= {"steps_per_sync": look, "draft": draft}
        return HFEngine(model, 12, 24, width, 7, "cuda", **options)

    return make


def pages_of(engine: HFEngine) -> PagedCache:
    assert isinstance(engine.cache, PagedCache)
    return engine.cache


def assert_consistent(engine: HFEngine) -> None:
    """Every page has as many references as rows have it; rows have what they hold; no page is lost."""
    cache = pages_of(engine)
    counted = [0] * len(cache.references)
    for row, pages in enumerate(cache.pages):
        assert len(pages) * PAGE >= len(engine.scheduler.prefix_cache[row].tokens)
        for page in pages:
            counted[page] += 1
    assert counted == cache.references and counted[0] == 0
    assert sorted(cache._free) == [p for p, n in enumerate(counted) if n == 0 and p > 0]


@pytest.mark.parametrize("draft", [0, 5, "auto"])
@pytest.mark.parametrize(
    ("name", "width", "look", "pages"), [("llama", 8, 8, 160), ("phi3-window", 3, 1, 60)]
)
def test_exact_after_random_histories(
    name: str, width: int, look: int, pages: int, draft: int | str, make: Make
) -> None:
    engine = make(name, pages, width, look, draft)
    histories = Histories(name, engine, seed=width + look)
    number = 0
    while histories.checked < 40:
        histories.turn(number := number + 1)
        assert_consistent(engine)
    assert histories.withdrawn and engine.runner.recorder.graphs


@pytest.mark.parametrize(
    ("width", "pages", "draft"), [(8, 14, 0), (3, 9, 0), (8, 14, 3), (3, 10, 3)]
)
def test_exact_in_hardly_any_memory(
    width: int, pages: int, draft: int, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sequence of the longest length takes 9 pages."""
    preempted, preempt = [], Scheduler._preempt
    monkeypatch.setattr(
        Scheduler, "_preempt", lambda *each: preempted.append(each) or preempt(*each)
    )
    engine = make("llama", pages, width, draft=draft)
    histories = Histories("llama", engine, seed=0)
    number = 0
    while histories.checked < 40:
        histories.turn(number := number + 1)
        assert_consistent(engine)
    assert preempted


@pytest.mark.parametrize("total", [2_000, pytest.param(10_000, marks=pytest.mark.faults)])
def test_pages_in_use_follow_the_tokens_and_none_is_lost(total: int) -> None:
    """Without a model: 32 chains of the paper's mean length, every request a proposal from a random place."""
    choose, pages = np.random.default_rng(0), 400
    config, width = models("llama")[0].config, 32
    cache = PagedCache(config, 2 * width, 3888, pages, torch.bfloat16, torch.device("cpu"))
    subject = Scheduler(PrefixCache(cache, width), max_prefill_tokens=4096)
    current: dict[int, Tokens] = dict.fromkeys(range(width), ())
    ends: dict[int, int] = {}
    used, held, answered, preempted = [], [], 0, 0

    def submit(chain: int) -> None:
        keep = int(choose.integers(0, len(current[chain]) + 1)) if current[chain] else 0
        ends[chain] = min(3072, keep + 1 + int(choose.exponential(400)))
        key, prompt = (answered, chain), tuple(range(chain, chain + 150))
        extend = Extend(key, current[chain], keep, 3072, stop_tokens=())
        subject.add(EngineRequest(chain, prompt, extend, np.zeros(0), False, 0, 0))

    for chain in range(width):
        submit(chain)
    while answered < total:
        subject.schedule()
        for _ in subject.prefill_batches():
            pass
        subject.make_room(64)
        for _, requests in subject.decode_batches():
            for request in requests:
                request.decoded += 64
        for request in [*subject.by_slot.values()]:
            if request.extend.keep + request.decoded >= ends[request.chain]:
                count = ends[request.chain] - request.extend.keep
                new = tuple(choose.integers(0, 300, count).tolist())
                subject.finish(request, (*request.known, *new[:-1]))
                chain, answered = request.chain, answered + 1
                preempted += request.preempted
                if choose.random() < 0.5:
                    current[chain] = request.extend.prefix + new
                if over := choose.random() < 0.1:
                    current[chain] = ()
                    subject.withdraw(chain, None)
                submit(chain)
                if not over:
                    subject.withdraw(chain, request.key)
        used.append(pages - cache.spare() // paged_cache.PAGE)
        held.append(sum(150 + len(x) for x in current.values()))
    assert preempted == 0
    assert np.mean(used) * paged_cache.PAGE < 3 * np.mean(held)
    for chain in range(width):
        subject.withdraw(chain, None)
    while subject.prefix_cache.drop(range(2 * width)):
        pass
    assert cache.spare() == pages * paged_cache.PAGE and not any(cache.references)


def test_a_preempted_request_draws_the_same_and_says_what_it_cost(make: Make) -> None:
    u = {c: np.random.default_rng(c).random(24) for c in range(4)}
    request = Extend((0,), (), 0, 24, stop_tokens=(), tau=0.5)
    jobs = {c: ((5, 6, c), request, u[c]) for c in u}
    roomy, tight = run(make("llama", 100, 4), jobs), run(make("llama", 15, 4), jobs)
    assert all(draw.preempted == 0 for draw in roomy.values())
    assert sum(draw.preempted for draw in tight.values()) > 0
    for chain, draw in roomy.items():
        assert tight[chain].tokens == draw.tokens
        assert tight[chain].logp == pytest.approx(draw.logp, abs=1e-4)


def test_what_was_decoded_in_vain_is_told_when_a_request_is_withdrawn(make: Make) -> None:
    engine = make("llama", 15, 4, look=1)
    request = Extend((0,), (), 0, 24, stop_tokens=(), tau=0.5)
    for chain in range(4):
        engine.submit(chain, (5, 6, chain), request, np.random.default_rng(chain).random(24))
    decoded = 0
    while not any(each.preempted for each in engine.scheduler.waiting):
        decoded += sum(each.running for each in engine.scheduler.by_slot.values())
        engine.step()
    assert sum(engine.withdraw(chain) for chain in range(4)) == pytest.approx(decoded, abs=12)
    assert_consistent(engine)


def test_a_rejected_proposal_costs_no_recomputation_and_only_its_suffix_of_memory(
    make: Make,
) -> None:
    engine = make("llama", 40, 1)
    cache = pages_of(engine)
    prompt, u = (5, 6, 7, 8), np.random.default_rng(0).random(24)
    x = run(engine, {0: (prompt, Extend((0,), (), 0, 24, stop_tokens=()), u)})[0]
    alone = 40 - cache.spare() // PAGE
    assert alone == 7
    for cut in (5, 15, 10, 20):
        proposal = Extend((cut,), x.tokens, cut, 24, stop_tokens=())
        drawn = run(engine, {0: (prompt, proposal, u[::-1].copy())})[0]
        assert drawn.prefilled == 0
        assert close("llama", prompt, x.tokens[:cut], drawn.tokens, drawn.logp)
        assert 40 - cache.spare() // PAGE == alone + 7 - (4 + cut - 1) // PAGE


def test_graphs_read_a_block_table_that_changes(make: Make) -> None:
    """Recorded once, they go on while rows get other pages, until a longer sequence makes the table wider."""
    engine = make("llama", 40, 1)
    u = np.random.default_rng(0).random(60)
    request = Extend((0,), (), 0, 24, stop_tokens=())
    for chain in range(3):
        drawn = run(engine, {chain: ((5, 6, chain), request, u)})[chain]
        assert close("llama", (5, 6, chain), (), drawn.tokens, drawn.logp)
        recorded = [*engine.runner.recorder.graphs.values()]
        assert len(recorded) == 1
    long = replace(request, until=60)
    drawn = run(engine, {9: ((5, 6, 9), long, u)})[9]
    assert close("llama", (5, 6, 9), (), drawn.tokens, drawn.logp)
    assert [*engine.runner.recorder.graphs.values()] != recorded


def test_a_sequence_that_all_pages_do_not_hold_is_refused_in_one_line(make: Make) -> None:
    engine = make("llama", 10, 2)
    u, request = np.random.default_rng(0).random(60), Extend((0,), (), 0, 60, stop_tokens=())
    with pytest.raises(
        UserError, match=r"63 tokens is longer than planned, and .* holds 40 tokens"
    ):
        engine.submit(0, (1, 2, 3), request, u)
    fits = replace(request, until=37)
    assert len(run(engine, {0: ((1, 2, 3), fits, u)})[0].tokens) == 37


def test_an_engine_is_made_for_what_is_free(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_cuda.pretend(monkeypatch)
    model = TinyModel("llama", torch.bfloat16)
    page = cache_plan.page_bytes(models("llama")[0].config, torch.bfloat16)

    def engine(pages: float, width: int | None = None) -> HFEngine:
        free = int(pages * page / kv_cache.SHARE)
        monkeypatch.setattr(kv_cache, "free_bytes", lambda _: free)
        return HFEngine(model, 512, 512, width, device="cuda", draft=0)

    roomy = engine(2000.5)
    assert roomy.max_num_seqs == 256 and capsys.readouterr().err == ""
    assert roomy.cache.spare() == 1999 * 256  # one is the scratch page
    assert engine(2000.5, 8).cache.spare() == 8 * 2 * 4 * 256  # all that 8 chains can need
    assert engine(30.5).max_num_seqs == 9  # of 2 pages each, and one more
    assert "a batch of 256 does not fit memory; using 9" in capsys.readouterr().err
    assert engine(5.5, 8).max_num_seqs == 1
    with pytest.raises(UserError, match=r"1024 tokens needs 0\.0 GiB of KV cache"):
        engine(4.5)
