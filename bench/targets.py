"""The rows: which requests go to which process, and whose CPU they are."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from bench import links, load, open_loop
from bench.load import BROWSER, Load
from bench.paced import Plan
from bench.rounds import LOAD_CORE, Target
from bench.scene import Scene, cold_numbers

Play = Callable[[int], Awaitable[Load]]

CONNECTIONS = 32
COLD_CONNECTIONS = 8  # a miss costs a hundred hits: more of them at a time would wait beyond their deadlines
CREATES = {"create-16": 16, "create-64": 64}
_HERE = Path(__file__).parent
_LINES = 300_000  # of a file of codes in one round: more than are asked for in it
_FILE_LINES = 1_000_000
_LINES_A_ROUND = 170_000  # further on in the file than the round before


def redirects(scene: Scene, code: str, duration_s: int) -> list[Target]:
    """nginx and the peers, then every way in which a redirect can be answered; `code` is of the link that is hot."""
    rows = [_constant(limit.name, limit.url, {limit.name: limit.pids}, duration_s) for limit in scene.limits]
    hot = scene.gateways["hot"]
    rows += _hot("linkmesh-hot", hot.url, hot.pid, code, duration_s)
    answer = scene.gateways["answer"]
    rows += _hot("linkmesh-answer", answer.url, answer.pid, code, duration_s)
    rows += _hot("linkmesh-asgi", hot.url, hot.pid, encoded(code), duration_s)
    rows.append(_mix(scene, duration_s))
    rows.append(_warm(scene, duration_s))
    if scene.sizes.cold:
        rows.append(_cold(scene))
    return rows


def creates(scene: Scene, duration_s: int) -> list[Target]:
    """Creates, each of a link of its own, by so many clients at a time."""
    url, headers = f"{scene.system.gateway}/api/links", bearer(scene)
    return [
        Target(
            name=name,
            play=_wrk(url, connections, duration_s, headers, creating=name),
            servers=scene.pids("gateway", "link_service", "valkey"),
        )
        for name, connections in CREATES.items()
    ]


def bearer(scene: Scene) -> Mapping[str, str]:
    """What a client says who may create."""
    return {"Authorization": f"Bearer {scene.system.api_key}", "Content-Type": "application/json"}


def encoded(code: str) -> str:
    """The same code in other bytes: of the same link, but what is ready is known by its usual bytes, so that the app
    answers, which knows the link from the same memory."""
    return f"%{ord(code[0]):02X}{code[1:]}"


def _constant(name: str, url: str, servers: Mapping[str, Sequence[int]], duration_s: int) -> Target:
    return Target(name=name, play=_wrk(url, CONNECTIONS, duration_s, BROWSER), servers=servers)


def _hot(name: str, gateway: str, pid: int, path: str, duration_s: int) -> list[Target]:
    play = _wrk(f"{gateway}/{path}", CONNECTIONS, duration_s, BROWSER)
    return [Target(name=name, play=play, servers={"gateway": [pid]}, settles=[pid])]


def _mix(scene: Scene, duration_s: int) -> Target:
    gateway = scene.gateways["hot"]
    asked = links.zipf(scene.sizes.zipf, _FILE_LINES)
    return Target(
        name="linkmesh-zipf",
        play=_codes(gateway.url, duration_s, _file(scene, "zipf", asked)),
        servers={"gateway": [gateway.pid]},
        beside=scene.pids("valkey"),
        settles=[gateway.pid],
    )


def _warm(scene: Scene, duration_s: int) -> Target:
    gateway = scene.gateways["warm"]
    asked = links.evenly(scene.sizes.warm, _FILE_LINES)
    return Target(
        name="linkmesh-warm",
        play=_codes(gateway.url, duration_s, _file(scene, "warm", asked)),
        servers={"gateway": [gateway.pid]},
        beside=scene.pids("valkey"),
        settles=[gateway.pid],
    )


def _cold(scene: Scene) -> Target:
    gateway, numbers = scene.gateways["warm"], cold_numbers(scene.sizes)
    codes = [links.code_of(number) for number in numbers]
    plan = Plan(
        port=gateway.port,
        rate_per_s=0,
        connections=COLD_CONNECTIONS,
        requests=open_loop.get_requests(gateway.port, codes, BROWSER),
        order=list(range(len(codes))),
        core=LOAD_CORE,
    )

    async def forget(_round: int) -> None:
        await links.drop_from_redis(scene.redis, numbers)

    async def play(_round: int) -> Load:
        return open_loop.as_load(await open_loop.play(plan))

    return Target(
        name="linkmesh-cold",
        play=play,
        prepare=forget,
        servers={"gateway": [gateway.pid], **scene.pids("link_service", "valkey")},
        beside=scene.pids("dynamodb"),
        settles=[gateway.pid],
    )


def _file(scene: Scene, name: str, numbers: Sequence[int]) -> Path:
    path = scene.folder / f"{name}.codes"
    links.write_codes(path, numbers)
    return path


def _wrk(url: str, connections: int, duration_s: int, headers: Mapping[str, str], creating: str = "") -> Play:
    """Rounds of wrk for one URL; `creating`: under which name it makes links there."""
    script = _HERE / "create.lua" if creating else None

    async def play(_round: int) -> Load:
        return await load.run(
            url,
            connections=connections,
            duration_s=duration_s,
            core=LOAD_CORE,
            headers=headers,
            script=script,
            arguments=[creating] if creating else (),
        )

    return play


def _codes(gateway: str, duration_s: int, file: Path) -> Play:
    """Rounds of wrk for the codes in a file, each round further on in it."""

    async def play(number: int) -> Load:
        first = number * _LINES_A_ROUND % _FILE_LINES
        return await load.run(
            gateway,
            connections=CONNECTIONS,
            duration_s=duration_s,
            core=LOAD_CORE,
            headers=BROWSER,
            script=_HERE / "paths.lua",
            arguments=[str(file), str(first), str(_LINES)],
        )

    return play
