"""Large arrays between processes: whole, their own, and gone from memory when nobody has them."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jina_asgi import Deployment, ExecutorError, ReplicaPool
from jina_asgi.errors import ProtocolError, TooLarge
from jina_asgi.processes.arena import ARENA_SIZE, PAGE, Arena, ExportArena
from jina_asgi.processes.shared_memory import OwnerSharing, PeerSharing
from jina_asgi.protocols.frames import _layout
from jina_asgi.protocols.frames._layout import Frame, Reference
from jina_asgi.protocols.frames.connection import FrameConnection
from jina_asgi.types import Parts
from tests.doubles.replica_watch import resident
from tests.doubles.rig import shared_memory
from tests.doubles.tensor_executors import Array, Nothing, Tensors

pytestmark = pytest.mark.processes

LARGE = 1 << 18  # numbers, of four bytes each


def kept_here(**options: Any) -> Deployment:
    return ReplicaPool(Tensors, replicas=1, **options)


def kept_by_the_host(**options: Any) -> Deployment:
    return Deployment(Tensors, replicas=1, **options)


KEEPERS = pytest.mark.parametrize("make", [kept_here, kept_by_the_host])


def numbers(count: int = LARGE, first: int = 0) -> np.ndarray:
    return np.arange(first, first + count, dtype=np.float32)


@KEEPERS
async def test_arrays_of_every_size_come_back_whole(make: Callable[..., Deployment]) -> None:
    async with make() as pool:
        for count in (1, 2**14 - 1, 2**14, 2**14 + 1, 100_003, LARGE, 4 * LARGE):
            for array in (numbers(count), numbers(2 * count).reshape(2, count), numbers(2 * count)[::2]):
                [doc] = await pool.call("/echo", Array(text=str(count), tensor=array))
                assert str(count) == doc.text
                np.testing.assert_array_equal(array, doc.tensor)
                assert array.dtype == doc.tensor.dtype


@KEEPERS
async def test_several_documents_with_arrays_keep_their_order(make: Callable[..., Deployment]) -> None:
    async with make() as pool:
        docs = [Array(tensor=numbers(LARGE if index % 2 else 8, index)) for index in range(20)]
        answers = await pool.call("/add", docs)
        assert [index + 1 for index in range(20)] == [int(doc.tensor[0]) for doc in answers]


@KEEPERS
async def test_an_array_may_be_written_to_on_either_side(make: Callable[..., Deployment]) -> None:
    async with make() as pool:
        ours = numbers()
        [doc] = await pool.call("/add", Array(tensor=ours))
        np.testing.assert_array_equal(numbers() + 1, doc.tensor)
        np.testing.assert_array_equal(numbers(), ours)
        doc.tensor *= 2
        [again] = await pool.call("/add", Array(tensor=doc.tensor))
        np.testing.assert_array_equal(numbers() * 2 + 3, again.tensor)


@KEEPERS
async def test_an_executor_may_keep_an_array(make: Callable[..., Deployment]) -> None:
    async with make() as pool:
        for first in range(5):
            await pool.call("/keep", Array(tensor=numbers(1 << 15, first)))
            await pool.call("/echo", Array(tensor=numbers(1 << 15, 1000)))
        kept = await pool.call("/kept", Nothing())
        expected = [numbers(1 << 15, first) for first in range(5)]
        assert [[e[0], e[-1], e.sum()] for e in expected] == [list(doc.tensor) for doc in kept]


@KEEPERS
async def test_an_answer_outlives_the_pool(make: Callable[..., Deployment]) -> None:
    async with make() as pool:
        [first] = await pool.call("/echo", Array(tensor=numbers()))
        [second] = await pool.call("/echo", Array(tensor=numbers(first=7)))
    np.testing.assert_array_equal(numbers(), first.tensor)
    np.testing.assert_array_equal(numbers(first=7), second.tensor)


@KEEPERS
async def test_what_an_execution_wrote_is_not_there_when_it_is_run_again(make: Callable[..., Deployment]) -> None:
    async with make() as pool:

        async def asked(text: str, first: int) -> Any:
            try:
                return (await pool.call("/poisoned", Array(text=text, tensor=numbers(first=first))))[0].tensor[0]
            except ExecutorError as error:
                return type(error).__name__

        answers = await asyncio.gather(*(asked("poison" if index == 2 else "", index) for index in range(4)))
        assert [1.0, 2.0, "ExecutorError", 4.0] == answers


@KEEPERS
async def test_arrays_stream(make: Callable[..., Deployment]) -> None:
    async with make() as pool, aclosing(pool.stream("/stream", Array(tensor=numbers()))) as steps:
        firsts = [doc.tensor[0] async for doc in steps]
        assert [0.0, 1.0, 2.0, 3.0, 4.0, 5.0] == firsts


@KEEPERS
async def test_memory_is_used_again(make: Callable[..., Deployment]) -> None:
    async with make() as pool:
        array = numbers(4 << 20)  # 16 MiB: an arena has room for eight
        for _ in range(4):
            await pool.call("/echo", Array(tensor=array))
        gc.collect()
        before = resident(os.getpid())
        for _ in range(40):
            await pool.call("/echo", Array(tensor=array))
        assert resident(os.getpid()) - before < 64 << 20


async def test_more_than_an_arena_holds_is_sent() -> None:
    async with kept_here() as pool:
        arrays = [numbers(8 << 20, index) for index in range(6)]  # 32 MiB each
        answers = await asyncio.gather(*(pool.call("/echo", Array(tensor=array)) for array in arrays))
        assert sum(array.nbytes for array in arrays) > ARENA_SIZE
        for array, [doc] in zip(arrays, answers, strict=True):
            np.testing.assert_array_equal(array, doc.tensor)


async def test_killing_leaves_no_shared_memory_behind() -> None:
    before = shared_memory()
    async with kept_here() as pool:
        [doc] = await pool.call("/echo", Array(tensor=numbers()))
        [seat] = pool.runner.status()["replicas"].values()
        os.kill(seat["pid"], signal.SIGKILL)
        [again] = await pool.call("/echo", Array(tensor=numbers(first=3)))
        np.testing.assert_array_equal(numbers(first=3), again.tensor)
        np.testing.assert_array_equal(numbers(), doc.tensor)
    assert before == shared_memory()


class Ends:
    """A keeper and a peer, without the connection between them: releases reach the other side by `deliver`."""

    def __init__(self) -> None:
        self.keeper, self.peer = OwnerSharing(), PeerSharing()
        self.released: list[tuple[int, int]] = []
        self.keeper.start(self.released.extend, lambda arenas: None)
        self.peer.start(lambda keys: None, lambda arenas: None)
        head = self.keeper.offer()
        assert head is not None
        assert self.peer.accept(head)


async def test_memory_for_what_is_too_large_to_be_sent_is_free_again() -> None:
    ends = Ends()
    end = Connected(sharing=ends.peer)
    end.send_limit = 1 << 16
    docs = [bytes(ARENA_SIZE // 2 + 1), bytes(1 << 15), bytes(1 << 15)]
    for _ in range(3):  # the arena has room for one such document
        with pytest.raises(TooLarge):
            end.send(_layout.CALL, 1, b"", docs)
    [lent] = ends.peer.prepare([docs[0]])
    assert isinstance(lent, Reference)


class Connected(FrameConnection):
    """One end of a connection to nothing."""

    def frame_received(self, frame: Frame) -> None: ...

    def lost(self, cause: BaseException | None) -> None: ...


async def test_a_keeper_refuses_what_lies_in_no_arena_of_its_peer() -> None:
    ends, other = Ends(), Arena()
    [lent] = ends.peer.prepare([bytes(1 << 17)])
    assert isinstance(lent, Reference)
    for wrong in (
        Reference(other.number, other.descriptor, 0, 10),
        Reference(lent.arena, lent.descriptor, ARENA_SIZE - 10, 11),
        Reference(lent.arena, lent.descriptor, 0, 0),
        Reference(lent.arena, lent.descriptor, 1 << 60, 1 << 17),
    ):
        with pytest.raises(ProtocolError):
            ends.keeper.find(wrong)


async def test_what_was_not_lent_cannot_be_given_back() -> None:
    with pytest.raises(ProtocolError, match="had not been exported"):
        Ends().peer.released([(1, PAGE)])


async def test_a_doc_is_given_back_once_when_its_last_reader_is_gone() -> None:
    ends = Ends()
    [lent] = ends.peer.prepare([b"x" * (1 << 17)])
    assert isinstance(lent, Reference)
    found = ends.keeper.find(lent)
    part = found[10:20]
    del found
    await asyncio.sleep(0)
    assert [] == ends.released
    assert b"x" * 10 == bytes(part)
    del part
    await asyncio.sleep(0)  # releases leave in the next turn of the loop
    assert [(lent.arena, lent.offset)] == ends.released
    ends.peer.released(ends.released)
    [next_one] = ends.peer.prepare([b"y" * (1 << 17)])
    assert lent == next_one


def is_open(descriptor: int) -> bool:
    return Path(f"/proc/self/fd/{descriptor}").exists()


async def test_an_arena_is_closed_after_its_connection_and_last_doc_and_its_readers_are_notified() -> None:
    ends, reader = Ends(), OwnerSharing()
    told: list[int] = []
    reader.start(lambda keys: None, told.extend)
    reader.peer_can_read()
    [lent] = ends.peer.prepare([b"x" * (1 << 17)])
    assert isinstance(lent, Reference)
    [passed_on] = reader.prepare([ends.keeper.find(lent)])
    assert lent == passed_on
    ends.keeper.lost()
    await asyncio.sleep(0)
    assert (True, []) == (is_open(lent.descriptor), told)
    reader.released([(lent.arena, lent.offset)])
    await asyncio.sleep(0)  # what is given back leaves in the next turn of the loop, and so does the news of the end
    await asyncio.sleep(0)
    assert (False, [lent.arena]) == (is_open(lent.descriptor), told)


async def test_a_reader_closes_what_is_reported_as_gone() -> None:
    ends = Ends()
    own = ExportArena(Arena().head(), ends.keeper.offer().descriptor)  # type: ignore[union-attr]  # it offers one
    lent = own.export(b"x" * (1 << 17))
    assert lent is not None
    before = len(os.listdir("/proc/self/fd"))
    found = ends.peer.find(lent)
    assert b"xxx" == bytes(found[:3])
    del found
    await asyncio.sleep(0)
    ends.peer.ended([lent.arena])
    assert before == len(os.listdir("/proc/self/fd"))


async def test_views_that_are_out_when_a_connection_is_lost_stay_as_they_are() -> None:
    ends = Ends()
    descriptor = ends.keeper.offer().descriptor  # type: ignore[union-attr]  # it offers one
    own = ExportArena(Arena().head(), descriptor)
    lent = own.export(b"x" * (1 << 17))
    assert lent is not None
    found = ends.peer.find(lent)
    ends.peer.lost()
    os.pwrite(descriptor, b"y" * (1 << 17), lent.offset)
    assert b"x" * (1 << 17) == bytes(found)


async def test_a_doc_that_is_read_twice_at_once_is_two() -> None:
    ends = Ends()
    [lent] = ends.peer.prepare([b"x" * (1 << 17)])
    assert isinstance(lent, Reference)
    first = ends.keeper.find(lent)
    first[:3] = b"abc"
    second = ends.keeper.find(lent)
    assert b"xxx" == bytes(second[:3])
    del first, second
    await asyncio.sleep(0)
    assert [(lent.arena, lent.offset)] * 2 == ends.released
    assert b"xxx" == bytes(ends.keeper.find(lent)[:3])


async def test_a_peer_that_cannot_open_the_keepers_memory_says_so() -> None:
    arena = Arena()
    head = arena.head()
    gone = type(head)(head.arena, head.process, 10**6, head.size)
    peer = PeerSharing()
    assert not peer.accept(gone)
    assert [b"x" * (1 << 17)] == peer.prepare([Parts([b"x" * (1 << 17)], 0)])


def test_large_arrays_lie_well() -> None:
    arena = Arena()
    lent = ExportArena(arena.head(), arena.descriptor)
    for before in (1, 63, 64, 100):
        reference = lent.export(Parts([b"h" * before, bytes(1 << 17)], before))
        assert reference is not None
        assert (reference.offset + before) % 64 == 0
