"""What only shows on a real broker, or when a process is killed: `make mutants-long`."""

from tests.mutants.mutant import Edit, Mutant, broken

_RELAY = "tests/integration/relay/test_relay_real.py"
_KEYED = "tests/integration/kafka/test_keyed_real.py"

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
)
