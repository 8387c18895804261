"""CUDA for tests of the hf engine: as if, on any machine; for real where there is a GPU (`make test-cuda`)."""

from collections.abc import Callable

import as_cuda
import mm_reference  # noqa: F401  (registers itself)
import pytest
import torch

from powerbench.engines.hf import pass_times


@pytest.fixture(autouse=True)
def times_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of passes of tiny models, nothing is kept in the user's cache folder."""
    file = tmp_path_factory.mktemp("times") / "times.json"
    monkeypatch.setattr(pass_times, "file_of", lambda kind, identity: file)


@pytest.fixture
def prepare_cuda(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes device="cuda" be there: "as_cuda" or, for real, "cuda"."""

    def prepare(kind: str) -> None:
        if kind == "as_cuda":
            as_cuda.pretend(monkeypatch)
        elif not torch.cuda.is_available():
            pytest.skip("torch sees no CUDA device")

    return prepare


@pytest.fixture(params=["as_cuda", pytest.param("cuda", marks=pytest.mark.cuda)])
def cuda(request: pytest.FixtureRequest, prepare_cuda: Callable[[str], None]) -> str:
    """For tests on device="cuda"."""
    prepare_cuda(request.param)
    return request.param
