"""Tuned convolution tiles: off by default, chosen by a scripted timer, kept on disk, all right.

No GPU: the timer is a stand-in, and the kernels of every tile run on the emulator.
"""

from __future__ import annotations

import json
import multiprocessing
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from bn_cases import OPS, RELU, Draw, check
from conv_cases import filter_of, geometry, prologue
from shapes import DTYPE_NAMES, ConvShape
from triton.runtime.errors import OutOfResources

from resnet_kernels.ops import library
from resnet_kernels.triton import conv_dgrad, conv_fwd, conv_wgrad, tuning, tuning_cache
from resnet_kernels.triton.geometry import geometry_of
from resnet_kernels.triton.tiles import Tile, alternatives, tile_for, wgrad_tile

SHAPE = ConvShape(1, 70, 12, 11, 80, 3, 3, (1, 1), (1, 1))


class Timer:
    """Stands in for the GPU's: `times` by tile name, 1 ms for all others; counts its calls."""

    def __init__(self) -> None:
        self.times: dict[str, float | Exception] = {}
        self.calls: list[str] = []
        self.running = ""

    def __call__(self, call: Callable[[], object]) -> float:
        call()
        self.calls.append(self.running)
        time = self.times.get(self.running, 1.0)
        if isinstance(time, Exception):
            raise time
        return time


@pytest.fixture
def timer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Timer:
    """Tuning as in a fresh process on a GPU whose timer this is; the cache is in tmp_path."""
    timer = Timer()
    monkeypatch.setenv("RNK_TRITON_AUTOTUNE", "1")
    monkeypatch.setenv("RNK_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tuning, "timer_on", lambda device: timer)
    _forget(monkeypatch)
    return timer


def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process remembers."""
    monkeypatch.setattr(tuning, "_chosen", {})
    monkeypatch.setattr(tuning, "_said", set())
    monkeypatch.setattr(tuning_cache, "_warned", False)


def case_of(shape: ConvShape = SHAPE, dtype=torch.bfloat16, sums: bool = False) -> tuning.Case:
    w = torch.empty(shape.w_size)
    g = geometry_of(shape.x_size, w, *geometry(shape)[:4])
    return tuning.Case("conv_fwd", g, torch.empty(1, dtype=dtype), False, {"residual": None}, sums)


def static_of(case: tuning.Case) -> Tile:
    g = case.geometry
    return tile_for(g.pixels, g.columns, g.depth, case.operand.dtype, case.tf32)


def tiles_of(case: tuning.Case) -> list[Tile]:
    return alternatives(static_of(case), case.geometry.columns, case.operand.dtype, case.tf32)


def tune(timer: Timer, case: tuning.Case) -> Tile:
    def run(tile: Tile) -> None:
        timer.running = tile.name

    return tuning.tuned(case, static_of(case), case.geometry.columns, run)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_off_by_default(timer, monkeypatch, tmp_path) -> None:
    timer.times[tiles_of(case_of())[1].name] = 0.1
    for value in ("", "0"):
        monkeypatch.setenv("RNK_TRITON_AUTOTUNE", value)
        assert tune(timer, case_of()) == static_of(case_of())
    assert timer.calls == [] and files(tmp_path) == []


def test_the_fastest_is_taken_and_kept(timer, monkeypatch, tmp_path) -> None:
    tiles = tiles_of(case_of())
    timer.times[tiles[2].name] = 0.5
    assert tune(timer, case_of()) == tiles[2]
    assert timer.calls == [tile.name for tile in tiles]
    assert tune(timer, case_of()) == tiles[2]
    _forget(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tune(timer, case_of()) == tiles[2]
    assert len(timer.calls) == len(tiles)
    (path,) = files(tmp_path)
    entry = json.loads(path.read_text())
    assert entry["tile"] == tiles[2].name
    assert entry["milliseconds"][tiles[0].name] == 1.0


def test_a_choice_is_of_its_device_versions_shape_and_dtype(timer, monkeypatch, tmp_path) -> None:
    tune(timer, case_of())
    others = [
        case_of(SHAPE._replace(h=13)),
        case_of(SHAPE._replace(stride=(2, 1))),
        case_of(dtype=torch.float16),
        case_of(sums=True),
        case_of()._replace(op="conv_dgrad"),
        case_of()._replace(options={"residual": torch.empty(1)}),
    ]
    for count, other in enumerate(others, 2):
        tune(timer, other)
        assert len(files(tmp_path)) == count
    for where, name, value in (
        (tuning, "fingerprint", lambda: "other sources"),
        (tuning.triton, "__version__", "0"),
        (tuning, "device_name", lambda device: "another GPU"),
    ):
        count, calls = len(files(tmp_path)), len(timer.calls)
        with monkeypatch.context() as patch:
            patch.setattr(where, name, value)
            _forget(patch)
            tune(timer, case_of())
        assert len(timer.calls) > calls and len(files(tmp_path)) == count + 1


def _rewritten(text: str, **values: object) -> str:
    return json.dumps({**json.loads(text), **values})


DAMAGE = {
    "truncated": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "no object": lambda text: "[1, 2]",
    "another case": lambda text: _rewritten(text, key={}),
    "unknown tile": lambda text: _rewritten(text, tile="4096x4096x64, 64 warps, 9 stages"),
    "no name": lambda text: _rewritten(text, tile={"rows": 64}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_foreign_file_is_ignored_and_replaced(
    damage, timer, monkeypatch, tmp_path
) -> None:
    cases = [case_of(), case_of(SHAPE._replace(h=13))]
    best = tiles_of(cases[0])[1]
    timer.times[best.name] = 0.5
    for case in cases:
        tune(timer, case)
    before = [path.read_text() for path in files(tmp_path)]
    for path, text in zip(files(tmp_path), before, strict=True):
        path.write_text(DAMAGE[damage](text))
    timer.calls.clear()
    _forget(monkeypatch)
    with pytest.warns(UserWarning, match="ignored") as said:
        assert [tune(timer, case) for case in cases] == [best, best]
    assert len(said) == 1
    assert len(timer.calls) == 2 * len(tiles_of(cases[0]))
    assert [path.read_text() for path in files(tmp_path)] == before


@pytest.mark.parametrize("why", ["a file", "no home"])
def test_a_folder_that_cannot_be_written_is_ignored(why, timer, monkeypatch, tmp_path) -> None:
    if why == "a file":
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("RNK_CACHE_DIR", str(tmp_path / "file"))
    else:
        monkeypatch.delenv("RNK_CACHE_DIR")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

        def no_home() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(tuning_cache.Path, "home", no_home)
    cases = [case_of(), case_of(SHAPE._replace(h=13))]
    best = tiles_of(cases[0])[1]
    timer.times[best.name] = 0.5
    with pytest.warns(UserWarning, match="RNK_TRITON_AUTOTUNE") as said:
        assert [tune(timer, case) for case in cases * 2] == [best] * 4
    assert len(said) == 1
    assert len(timer.calls) == 2 * len(tiles_of(cases[0]))


def test_the_cache_lies_with_the_users_others(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("RNK_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tuning_cache.folder() == tmp_path / "resnet_kernels" / "triton"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(tuning_cache.Path, "home", lambda: tmp_path)
    assert tuning_cache.folder() == tmp_path / ".cache" / "resnet_kernels" / "triton"


def _store_many(barrier, mine: str, results) -> None:
    barrier.wait()
    results.put([tuning_cache.store({"case": i}, mine, {"a": 1.0, "b": 2.0}) for i in range(200)])


@pytest.mark.parametrize("links", [True, False])
def test_two_processes_agree(links, timer, monkeypatch, tmp_path) -> None:
    """Whoever is first decides, no file is ever half written, and none is left behind."""
    if not links:

        def link(source: object, target: object) -> None:
            raise PermissionError("no hard links here")

        monkeypatch.setattr(tuning_cache.os, "link", link)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    both = [context.Process(target=_store_many, args=(barrier, x, results)) for x in "ab"]
    for process in both:
        process.start()
    first, second = results.get(timeout=60), results.get(timeout=60)
    for process in both:
        process.join()
    kept = [tuning_cache.load({"case": i}, ["a", "b"]) for i in range(200)]
    assert None not in kept and len(files(tmp_path)) == 200
    if links:
        assert first == second == kept


def test_tiles_that_do_not_fit_the_gpu_are_left_out(timer) -> None:
    case = case_of()
    static, *others = tiles_of(case)
    too_large = OutOfResources(200_000, 100_000, "shared memory")
    timer.times = {static.name: too_large, others[-1].name: 0.5}
    assert tune(timer, case) == others[-1]


def test_nothing_is_timed_where_nothing_can_be(timer, monkeypatch, tmp_path) -> None:
    """In the capture of a graph: the static tile for now, without remembering it."""
    case = case_of()
    best = tiles_of(case)[1]
    timer.times[best.name] = 0.5
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "timer_on", lambda device: None)
        assert tune(timer, case) == static_of(case)
    assert files(tmp_path) == []
    assert tune(timer, case) == best
    _forget(monkeypatch)
    monkeypatch.setattr(tuning, "timer_on", lambda device: None)
    assert tune(timer, case) == best


def test_no_memory_to_time_leaves_the_static_tile(timer, tmp_path) -> None:
    case = case_of()
    timer.times = {
        tile.name: torch.OutOfMemoryError("CUDA out of memory") for tile in tiles_of(case)
    }
    with pytest.warns(UserWarning, match="no memory to time"):
        assert tune(timer, case) == static_of(case)
    assert files(tmp_path) == []


def test_another_order_of_sums_is_said_once(timer) -> None:
    cases = [case_of(sums=True), case_of(SHAPE._replace(h=13), sums=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tune(timer, cases[0]._replace(op="static is fastest"))
        timer.times[tiles_of(cases[0])[1].name] = 0.5
        tune(timer, case_of())
    with pytest.warns(UserWarning, match="last bits may differ") as said:
        for case in cases:
            tune(timer, case)
    assert len(said) == 1


@pytest.fixture
def emulated() -> Iterator[None]:
    before = library.set_default_backend("triton-emulated")
    yield
    library.set_default_backend(before)


def test_an_op_runs_the_tile_that_was_chosen(timer, monkeypatch, emulated, rng, repro) -> None:
    """The op's own launches are what is timed, and what it returns is the chosen tile's."""
    d = Draw(rng, (torch.bfloat16, "nhwc"))
    shape = ConvShape(1, 16, 9, 8, 20, 1, 1)
    ran: list[int] = []
    launch = conv_fwd.launch

    def recorded(kernel, programs, *args, **constants) -> None:
        ran.append(constants["BM"])
        launch(kernel, programs, *args, **constants)

    monkeypatch.setattr(conv_fwd, "launch", recorded)
    times = iter((2.0, 1.0))
    monkeypatch.setattr(tuning, "timer_on", lambda device: lambda call: (call(), next(times))[1])
    x, w = d.activation(shape.x_size), filter_of(d, shape)
    with pytest.warns(UserWarning, match="conv_fwd runs tile 128x32"):
        args = (x, w, *prologue(d, shape.c, RELU), *geometry(shape))
        check("conv_fwd_stats", shape.y_size, shape.reduction_length, repro, *args)
    assert ran == [64, 128, 128]


def each_tile(module, tiles: list[Tile], monkeypatch, call: Callable[[], object]) -> list:
    """Results of a call with each tile."""
    results = []
    for tile in tiles:
        monkeypatch.setattr(module, "tuned", lambda case, static, columns, run, tile=tile: tile)
        results.append(call())
    return results


def check_conv_fwd(shape: ConvShape, dtype, tf32: bool, monkeypatch, rng, repro) -> None:
    """y has the same bits with every tile; statistics are right."""
    d = Draw(rng, (dtype, "nhwc"))
    x, w = d.activation(shape.x_size), filter_of(d, shape)
    args = (x, w, *prologue(d, shape.c, RELU), *geometry(shape)[:4], tf32)
    static = tile_for(shape.h * shape.w, shape.k, shape.c, dtype, tf32)
    tiles = alternatives(static, shape.k, dtype, tf32)

    def call() -> torch.Tensor:
        if tf32:
            return OPS.conv_fwd_stats(*args)[0]
        return check("conv_fwd_stats", shape.y_size, shape.reduction_length, repro, *args)[0]

    first, *others = each_tile(conv_fwd, tiles, monkeypatch, call)
    assert len(others) >= 1 and all(torch.equal(first, y) for y in others)


def test_every_tile_for_64_filters(emulated, monkeypatch, rng, repro) -> None:
    """The short list of what the next three tests do."""
    check_conv_fwd(SHAPE._replace(k=64), torch.bfloat16, False, monkeypatch, rng, repro)


PRECISIONS = [(dtype, False) for dtype in DTYPE_NAMES if dtype != torch.float64]
PRECISIONS.append((torch.float32, True))
over_precisions = pytest.mark.parametrize(
    ("dtype", "tf32"), PRECISIONS, ids=lambda v: DTYPE_NAMES.get(v, "tf32" if v else "exact")
)


@pytest.mark.full
@over_precisions
def test_every_tile_of_conv_fwd_in_each_precision(
    dtype, tf32, emulated, monkeypatch, rng, repro
) -> None:
    check_conv_fwd(SHAPE, dtype, tf32, monkeypatch, rng, repro)


@pytest.mark.full
@over_precisions
def test_every_tile_of_conv_dgrad(dtype, tf32, emulated, monkeypatch, rng, repro) -> None:
    """g has the same bits with every tile; its sums agree."""
    d = Draw(rng, (dtype, "nhwc"))
    dy, w, y = d.activation(SHAPE.y_size), filter_of(d, SHAPE), d.activation(SHAPE.x_size)
    args = (dy, w, None, y, *d.bn(SHAPE.c), None, RELU, 0.0, *geometry(SHAPE)[:4], tf32)
    static = tile_for(SHAPE.h * SHAPE.w, SHAPE.c, SHAPE.k, dtype, tf32)
    tiles = alternatives(static, SHAPE.c, dtype, tf32)
    found = each_tile(conv_dgrad, tiles, monkeypatch, lambda: OPS.conv_dgrad_bn(*args))
    (first, sums), *others = found
    assert len(others) >= 1
    for g, other_sums in others:
        assert torch.equal(first, g), repro
        assert torch.allclose(sums, other_sums, rtol=1e-5, atol=1e-4), repro


@pytest.mark.full
@over_precisions
def test_every_tile_of_conv_wgrad(dtype, tf32, emulated, monkeypatch, rng, repro) -> None:
    """The same bits with every tile: the splits are the static one's."""
    d = Draw(rng, (dtype, "nhwc"))
    shape = SHAPE._replace(n=8)
    dy, x = d.activation(shape.y_size), d.activation(shape.x_size)
    args = (dy, x, filter_of(d, shape), *prologue(d, shape.c, RELU), *geometry(shape)[:4], tf32)
    static = wgrad_tile(shape.k, shape.c, 9, dtype, tf32)
    tiles = alternatives(static, shape.c, dtype, tf32)
    first, *others = each_tile(conv_wgrad, tiles, monkeypatch, lambda: OPS.conv_wgrad(*args))
    assert len(others) >= 1 and all(torch.equal(first, dw) for dw in others), repro
