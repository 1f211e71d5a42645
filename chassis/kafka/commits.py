"""Committing by aiokafka's consumer such that a commit that is given up is over.

`AIOKafkaConsumer.commit` shields the request from whoever cancels it. It then fails by itself, seconds later, and is
reported as an error that nobody has looked at: one a second while a broker hangs.
"""
# ruff: noqa: SLF001 (the library has no public way to give up; 0.14)

import asyncio
from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.util import commit_structure_validate

_AGAIN_S = 0.1


async def commit(consumer: AIOKafkaConsumer, offsets: Mapping[TopicPartition, int]) -> None:
    """Store these next offsets; tries again until it works, is refused for good, or is cancelled.

    Raises:
        KafkaError: it is refused for good: such as for a partition that another member has by now.
    """
    subscription = consumer._subscription.subscription
    assignment = subscription.assignment if subscription is not None else None
    coordinator = consumer._coordinator
    if assignment is None or coordinator is None:
        raise KafkaError("no partitions are assigned")
    wanted = commit_structure_validate(dict(offsets))
    while True:
        await coordinator.ensure_coordinator_known()
        try:
            async with coordinator._commit_lock:
                await coordinator._do_commit_offsets(assignment, wanted)
        except KafkaError as error:
            if not error.retriable:
                raise
            await asyncio.sleep(_AGAIN_S)
        else:
            return
