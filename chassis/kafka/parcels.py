"""Handing many messages to the client library at once: a batch for each partition, and one answer for each batch.

Message by message costs a coroutine, a future, two callbacks and a result object each. It is for calls of many: into a
batch that the library makes itself it puts the messages of several calls, and batches made here wait for each other.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner

from chassis.kafka.record import Message

PARCEL_FROM = 8  # messages; fewer are not worth it
Answer = asyncio.Future[object]
logger = logging.getLogger(__name__)
_choose = cast("Callable[[bytes, list[int], list[int]], int]", DefaultPartitioner())  # the one that `send` asks


class _Batch(Protocol):
    """The library's builder, as far as it is used here."""

    def append(
        self, *, timestamp: int | None, key: bytes, value: bytes, headers: list[tuple[str, bytes]]
    ) -> object | None:
        """None: it is full."""


@dataclass(slots=True, eq=False)
class _Parcel:
    """Messages of one partition, by their places in the call."""

    batch: _Batch
    places: list[int] = field(default_factory=list)


async def hand_over(producer: AIOKafkaProducer, messages: Sequence[Message], answers: list[Answer]) -> None:
    """Hands all messages over, in order within each partition. Fills `answers` with the broker's to each message; of
    one that was not handed over, because this was cancelled or raised or there is no such partition, it never comes.

    Raises:
        KafkaError: the library takes no more.
    """
    answers[:] = [asyncio.get_running_loop().create_future()] * len(messages)
    partitions: dict[str, list[int]] = {}
    parcels: dict[tuple[str, int], _Parcel] = {}
    absent = set[tuple[str, int]]()
    for place, message in enumerate(messages):
        known = partitions.get(message.topic)
        if known is None:
            known = partitions[message.topic] = list(await producer.partitions_for(message.topic))
        partition = message.partition if message.partition is not None else _choose(message.key, known, known)
        if partition not in known:
            absent.add((message.topic, partition))
            continue
        target = (message.topic, partition)
        parcel = parcels.get(target)
        if parcel is None or not _append(parcel, message):
            if parcel is not None:
                await _submit(producer, target, parcel, answers)
            parcel = parcels[target] = _Parcel(producer.create_batch())
            _append(parcel, message)  # a batch takes its first message whatever its size
        parcel.places.append(place)
    for topic, partition in absent:
        logger.error("%s has no partition %d", topic, partition)
    for target, parcel in parcels.items():
        await _submit(producer, target, parcel, answers)


def _append(parcel: _Parcel, message: Message) -> bool:
    headers = list(message.headers)  # the library insists
    return parcel.batch.append(timestamp=None, key=message.key, value=message.value, headers=headers) is not None


async def _submit(producer: AIOKafkaProducer, target: tuple[str, int], parcel: _Parcel, answers: list[Answer]) -> None:
    topic, partition = target
    answer: Answer = await producer.send_batch(parcel.batch, topic, partition=partition)
    answer.add_done_callback(retrieve)
    for place in parcel.places:
        answers[place] = answer


def retrieve(answer: Answer) -> None:
    """Looks at the exception, so that an answer nobody waits for any more is not reported as forgotten."""
    if not answer.cancelled():
        answer.exception()
