"""The list of faults is what it promises to be."""

from itertools import islice

import pytest

from tests.chaos.schedule import RELAY, SHORT, Verb, every_step, long_schedule, only, short_schedule

_PROCESSES = {RELAY, "writer", "audit", "webhook", "link_service", "analytics", "gateway"}
_ENGINES = {"valkey", "dynamodb", "kafka"}


def test_the_long_form_kills_and_hangs_everything_before_it_repeats_anything() -> None:
    """Each kind of fault; kill and hang of every process and engine; Kafka away for two minutes."""
    first = list(islice(long_schedule(1), len(every_step())))

    assert sorted(map(str, first)) == sorted(map(str, every_step()))
    assert {step.verb for step in first} == set(Verb)
    for verb in (Verb.KILL, Verb.HANG):
        assert {name for step in first if step.verb is verb for name in step.victims} >= _PROCESSES | _ENGINES
    assert any(step.verb is Verb.AWAY and step.victims == ("kafka",) and step.hold_s == 120 for step in first)


def test_the_short_form_has_a_dozen_faults_and_kafka_away() -> None:
    """All of its steps come in the first round, and more faults than are asked for."""
    first = list(islice(short_schedule(1), len(SHORT)))

    assert sorted(map(str, first)) == sorted(map(str, SHORT))
    assert sum(len(step.victims) for step in first if step.verb is not Verb.POISON) >= 14
    assert any(step.verb is Verb.AWAY and step.victims == ("kafka",) and step.hold_s == 20 for step in first)


def test_a_seed_is_an_order() -> None:
    """The same seed breaks the same things in the same order, another one does not."""
    one, again, other = (list(islice(long_schedule(seed), 80)) for seed in (5, 5, 6))

    assert one == again
    assert one != other


def test_one_step_can_be_asked_for_again_and_again() -> None:
    """Also one that the long form has only once; a name of no step is said to be one, not looked for for ever."""
    assert [step.verb for step in islice(only("counter", every_step()), 3)] == [Verb.COUNTER] * 3
    with pytest.raises(ValueError, match="no step is called 'conter'"):
        only("conter", every_step())
