"""Many mutations in one pipeline: each is checked and answered as if it had come alone."""

from datetime import timedelta

import pytest

from link_service.ports import Conflict, Done, Late, LeaseNeeded
from tests.contract.link_cache.worlds import Play, World, mutation_of, new_link, next_of


@pytest.mark.rule("R1", "P1")
def test_each_mutation_of_a_pipeline_has_its_own_verdict(play: Play) -> None:
    """Verdicts in order, of every kind; what is Done is stored with its event, what is not has left nothing behind."""

    async def scenario(world: World) -> None:
        old = new_link()
        assert await world.cache.mutate(mutation_of(old, generated=True)) == Done(old)
        past = await world.cache.now() - timedelta(seconds=1)
        made = [new_link() for _ in range(3)]
        late, unleased = new_link(), new_link()

        verdicts = await world.cache.mutate_all(
            [
                mutation_of(made[0], generated=True),
                mutation_of(next_of(next_of(old))),
                mutation_of(made[1], generated=True),
                mutation_of(late, generated=True, not_after=past, remember=True),
                mutation_of(unleased),
                mutation_of(old, generated=True),
                mutation_of(made[2], generated=True),
            ]
        )

        assert verdicts == [
            Done(made[0]),
            Conflict(),
            Done(made[1]),
            Late(),
            LeaseNeeded(),
            Done(old, repeated=True),
            Done(made[2]),
        ]
        assert [await world.cache.get(link.key) for link in (*made, late, unleased)] == [*made, None, None]
        assert len(await world.outbox.read(wait_s=0.01)) == 4
        assert await world.cache.mutate_all([]) == []

    play(scenario)
