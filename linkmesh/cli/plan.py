"""`linkmesh plan`: how many partitions a load needs."""

from math import ceil
from typing import Annotated

import typer

from contracts.topics import RECORDS_PER_S_PER_PARTITION, partitions_needed
from linkmesh.cli.terminal import Json, show


def plan(
    rps: Annotated[float, typer.Option(min=0, help="Records a second that you expect at the peak.")],
    consumers: Annotated[int, typer.Option(min=1, help="Instances that shall be able to share the work.")] = 1,
    headroom: Annotated[float, typer.Option(min=1, help="Factor on the result for growth.")] = 1.0,
    as_json: Json = False,
) -> None:
    """Say how many partitions a topic needs: max(rps / 1000, consumers), times the headroom, rounded up."""
    needed = partitions_needed(expected_rps=rps, consumers=consumers)
    planned = ceil(needed * headroom)
    result = {
        "expected_rps": rps,
        "consumers": consumers,
        "headroom": headroom,
        "records_per_s_per_partition": RECORDS_PER_S_PER_PARTITION,
        "partitions": planned,
        "instances_max": planned,
    }
    show(
        result,
        lambda: (
            f"{planned} partitions: max({rps:g} / {RECORDS_PER_S_PER_PARTITION}, {consumers} consumers) = {needed}, "
            f"times {headroom:g}\nA topic keyed by code keeps its number for life; choose it for the years to come."
        ),
        as_json=as_json,
    )
