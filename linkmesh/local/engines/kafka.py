"""Apache Kafka in KRaft mode: one node that is broker and controller, set up for a quick start and a quick restart."""

import asyncio
from pathlib import Path

from linkmesh.local import cache
from linkmesh.local.engines.engine import Engine
from linkmesh.local.engines.kafka_storage import format_storage
from linkmesh.local.java import FIRST_COMPILER_ONLY, START_FAST, AotCache, find_java
from linkmesh.local.probes import kafka_ready

_HEAP = ("-Xms64m", "-Xmx256m")

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={log_dirs}
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
# Consumers use sessions of 3 s, so that another instance takes over within 5 s.
group.min.session.timeout.ms=2000
# After a kill -9 the controller forgets the old broker in 2 s instead of 9 s: back in 5.5 s instead of 12 s.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
log.cleaner.dedupe.buffer.size=16777216
"""

_LOGGING = """\
rootLogger.level=INFO
rootLogger.appenderRefs=stdout
rootLogger.appenderRef.stdout.ref=STDOUT
appender.stdout.type=Console
appender.stdout.name=STDOUT
appender.stdout.layout.type=PatternLayout
appender.stdout.layout.pattern=[%d] %p %m (%c)%n
"""


class KafkaEngine(Engine):
    """A broker on `port` with its controller on `controller_port`; `throughput` lets the JVM optimise fully."""

    name = "kafka"

    def __init__(self, state: Path, port: int, controller_port: int, *, throughput: bool = False) -> None:
        super().__init__(state, port)
        self.controller_port = controller_port
        self._throughput = throughput
        self._jars = cache.folder_of(cache.KAFKA)
        self._java = find_java()
        key = self._jars.name + ("-throughput" if throughput else "")
        self.aot = AotCache(cache.cache_folder() / "aot", key, self._java)

    @property
    def bootstrap(self) -> str:
        """The address as clients take it."""
        return self.address

    async def is_ready(self) -> bool:
        """Whether the broker serves clients."""
        return await kafka_ready(self.port)

    async def prepare(self) -> None:
        """Fetch the jars if need be, write the configuration, format the storage on the first start."""
        await asyncio.to_thread(cache.fetch, cache.KAFKA)
        log_dirs = self.data / "logs"
        properties = _PROPERTIES.format(port=self.port, controller_port=self.controller_port, log_dirs=log_dirs)
        self._config.write_text(properties)
        (self.data / "log4j2.properties").write_text(_LOGGING)
        if not (log_dirs / "meta.properties").exists():
            await format_storage(
                log_dirs,
                template=cache.cache_folder() / "formatted" / self._jars.name,
                tool=[*self._jvm(), "-cp", cache.class_path(self._jars), "kafka.tools.StorageTool"],
                properties=properties,
            )

    def command(self) -> list[str]:
        """Return the broker's command line."""
        assert self.aot is not None, "set when this was made"
        return [*self._jvm(), *self.aot.flags(), "-cp", cache.class_path(self._jars), "kafka.Kafka", str(self._config)]

    @property
    def _config(self) -> Path:
        return self.data / "server.properties"

    def _jvm(self) -> list[str]:
        flags = [*_HEAP, *START_FAST, f"-Dlog4j2.configurationFile={self.data / 'log4j2.properties'}"]
        if not self._throughput:
            flags.append(FIRST_COMPILER_ONLY)
        if self._java.major >= 23:  # older ones do not know it, and do not warn either
            flags.append("--sun-misc-unsafe-memory-access=allow")
        return [self._java.executable, *flags]
