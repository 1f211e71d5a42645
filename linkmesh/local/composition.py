"""From the options: which engines run here, which files they need, which ports must be free."""

from linkmesh.local import cache
from linkmesh.local.engines import DynamoDBEngine, Engine, KafkaEngine, ValkeyEngine, ZipkinEngine
from linkmesh.local.errors import LocalError
from linkmesh.local.options import PORTS, Options
from linkmesh.local.ports import is_free, who_listens

_OF_ENGINES = ("redis", "dynamodb", "kafka", "kafka-controller")
_OF_TRACES = ("zipkin", "otlp")


def engines_of(options: Options) -> list[Engine]:
    """Return the engines to run, in the order of their start."""
    state, ports = options.state, options.ports
    engines: list[Engine] = []
    if options.engines == "own":
        kafka = KafkaEngine(state, ports["kafka"], ports["kafka-controller"], throughput=options.throughput)
        engines += [ValkeyEngine(state, ports["redis"]), DynamoDBEngine(state, ports["dynamodb"]), kafka]
    if options.traces:
        engines.append(ZipkinEngine(state, ports["zipkin"]))
    return engines


def needed_files(options: Options) -> list[cache.EngineFiles]:
    """Return what must be in the cache before the start."""
    own = [cache.dynamodb_files(), cache.KAFKA] if options.engines == "own" else []
    return [*own, cache.ZIPKIN] if options.traces else own


def needed_ports(options: Options) -> list[str]:
    """Return the names of the ports that this start will listen on."""
    of_services = [name for name in PORTS if name.split("-")[0] in options.services]
    of_engines = _OF_ENGINES if options.engines == "own" else ()
    return [*of_services, *of_engines, *(_OF_TRACES if options.traces else ())]


def check_ports(options: Options) -> None:
    """See that all ports are free.

    Raises:
        LocalError: one is not; it names who holds it and the flag that moves ours.
    """
    for name in needed_ports(options):
        port = options.ports[name]
        if not is_free(port):
            hint = f"move ours: --port {name}=N (all at once: --port-offset N, or --free-ports)"
            raise LocalError(f"port {port} ({name}) is taken by {who_listens(port)}", hint)


def addresses_of_engines(options: Options) -> tuple[str, str]:
    """Return the addresses of Kafka and of DynamoDB (empty: AWS itself).

    Raises:
        LocalError: the engines are external and nothing says where Kafka is.
    """
    if options.engines == "own":
        return f"127.0.0.1:{options.ports['kafka']}", f"http://127.0.0.1:{options.ports['dynamodb']}"
    missing = [name for name in ("LINKMESH_KAFKA", "LINKMESH_REDIS") if not options.settings.get(name)]
    if missing:
        raise LocalError(f"--engines external needs {missing[0]}", "set it to the address, as in docs/CONTRACTS.md")
    return options.settings["LINKMESH_KAFKA"], options.settings.get("LINKMESH_DYNAMODB", "")
