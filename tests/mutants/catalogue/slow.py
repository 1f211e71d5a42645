"""What only shows on a real broker, or when a process is killed: `make mutants-long`."""

from tests.mutants.mutant import Edit, Mutant, broken

_RELAY = "tests/integration/relay/test_relay_real.py"
_KEYED = "tests/integration/kafka/test_keyed_real.py"
_PRODUCER = "tests/integration/kafka/test_producer_faults.py"

MUTANTS: tuple[Mutant, ...] = (
    broken(
        "trim-before-the-acknowledgement-of-a-killed-broker",
        "O1",
        "what was on its way when Kafka died is nowhere",
        Edit(
            file="link_service/loops/relay.py",
            old="to_send = [message for message in messages if message is not None]\n",
            new="to_send = [message for message in messages if message is not None]\n"
            "        await self._outbox.trim(finished_through(entries, messages, len(to_send)))\n",
        ),
        f"{_RELAY}::test_a_broker_that_is_killed_loses_nothing_and_writes_go_on",
        slow=True,
    ),
    broken(
        "commit-before-the-outcome-on-a-real-broker",
        "C3",
        "a record that was being handled when its partition moved is never handled",
        Edit(
            file="chassis/kafka/window_parts.py",
            old="return next(iter(self.unfinished), self.next_offset)",
            new="return self.next_offset",
        ),
        f"{_KEYED}::test_work_that_outlives_the_drain_is_handled_by_the_next_owner",
        slow=True,
    ),
    broken(
        "failed-producer-goes-on",
        "O1",
        "what a producer still holds of a failed call is sent behind what the next one has sent",
        Edit(
            file="chassis/kafka/producer.py",
            old="                await self._throw_away(producer)\n",
            new="                pass\n",
        ),
        f"{_PRODUCER}::test_acknowledged_is_in_the_log_and_first_occurrences_in_order[freeze]",
        slow=True,
    ),
    broken(
        "dead-members-are-waited-for",
        "C3",
        "the links of a consumer that died wait for half a minute",
        Edit(file="chassis/kafka/source_kafka.py", old="session_timeout_ms=3_000", new="session_timeout_ms=30_000"),
        f"{_KEYED}::test_a_dead_member_is_replaced_and_a_restarted_one_keeps_its_seat",
        slow=True,
    ),
    broken(
        "dependency-away-is-the-records-fault-on-a-real-broker",
        "C1",
        "a database that is away fills the dead letters",
        Edit(
            file="chassis/kafka/work.py",
            old="(Unavailable, DeadlineExceeded, ResourceExhausted, TimeoutError, ConnectionError)",
            new="(DeadlineExceeded, TimeoutError)",
        ),
        f"{_KEYED}::test_dependency_away_pauses_then_everything_is_done",
        slow=True,
    ),
    broken(
        "old-topics-offsets-are-believed",
        "C3",
        "after a topic was created anew its records are taken for old ones",
        Edit(file="chassis/kafka/keyed.py", old="if self._window.begun_anew(record):", new="if False:"),
        f"{_KEYED}::test_a_topic_that_is_deleted_and_created_anew_is_read_from_its_beginning",
        slow=True,
    ),
)
