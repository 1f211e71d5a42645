"""The relay (O1): what is sent in which order, and what may be trimmed."""

from tests.mutants.mutant import Edit, broken

_RELAY = "link_service/loops/relay.py"
_TESTS = "tests/unit/relay/test_relay.py"
_LEADING = "tests/unit/relay/test_leading.py"
_SENT = "to_send = [message for message in messages if message is not None]\n"


MUTANTS = (
    broken(
        "trim-before-the-acknowledgement",
        "O1",
        "what was on its way when Kafka or the relay died is nowhere",
        Edit(
            file=_RELAY,
            old=_SENT,
            new=_SENT + "        await self._outbox.trim(finished_through(entries, messages, len(to_send)))\n",
        ),
        f"{_TESTS}::test_exactly_what_the_broker_acknowledged_is_trimmed",
        f"{_TESTS}::test_an_hour_without_kafka_keeps_everything_and_its_return_is_noticed_at_once",
    ),
    broken(
        "trim-past-a-failed-send",
        "O1",
        "the event that Kafka did not take is trimmed with those behind it",
        Edit(
            file=_RELAY,
            old="            if acknowledged == 0:\n                break\n",
            new="            if acknowledged == 0:\n                continue\n",
        ),
        f"{_TESTS}::test_how_far_each_bucket_may_be_trimmed",
    ),
    broken(
        "relay-sends-past-a-failed-send",
        "O1",
        "a delete overtakes the update whose send failed",
        Edit(
            file=_RELAY,
            old="            FAILURES.inc()\n",
            new="            FAILURES.inc()\n"
            "            rest = to_send[acknowledged + 1 :]\n"
            "            await self._sender.send_in_order(rest, timeout_s=self._policy.send_timeout_s)\n",
        ),
        f"{_TESTS}::test_exactly_what_the_broker_acknowledged_is_trimmed",
    ),
    broken(
        "trim-the-head-too",
        "O1",
        "the event behind the last acknowledged one is lost",
        Edit(
            file="link_service/adapters/outbox_redis.py",
            old="{milliseconds}-{sequence + 1}",
            new="{milliseconds}-{sequence + 2}",
        ),
        "tests/integration/redis/test_outbox_limits.py::"
        "test_of_entries_of_one_millisecond_only_those_that_are_meant_are_trimmed",
    ),
    broken(
        "relay-without-a-lease",
        "O1",
        "every instance relays: all events twice",
        Edit(file=_RELAY, old="                if await self._renew():\n", new="                if True:\n"),
        f"{_TESTS}::test_one_relay_leads_and_another_takes_over_within_the_lease",
    ),
    broken(
        "leader-for-ever",
        "O1",
        "a leader that was paused goes on beside its successor",
        Edit(
            file=_RELAY,
            old="if not await self._renew() and self._clock.monotonic() >= self._leader_until:",
            new="if False:",
        ),
        f"{_LEADING}::test_a_leader_that_lost_its_lease_stops",
        f"{_LEADING}::test_a_leader_that_cannot_renew_stops_with_its_lease",
    ),
    broken(
        "one-bad-entry-stops-the-relay",
        "O1",
        "an entry that cannot be read stops all events",
        Edit(
            file=_RELAY,
            old="    except UndecodableError:\n        return None\n",
            new="    except UndecodableError:\n        raise\n",
        ),
        f"{_TESTS}::test_an_entry_that_cannot_be_read_is_set_aside_and_stops_nobody",
        dies_of="UndecodableError",
    ),
)
