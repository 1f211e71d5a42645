"""Of every row a fixed number of requests, before anything else runs: what was answered must be what was counted."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from urllib.parse import urlsplit

from bench import counted, fixed, instances, links, open_loop, processes
from bench.counted import Counter
from bench.fixed import Exact
from bench.load import BROWSER
from bench.paced import Plan
from bench.persisted import persisted
from bench.report import Counted
from bench.rounds import LOAD_CORE, SERVER_CORE
from bench.scene import KEEPING, Scene, cold_numbers, make_link
from bench.targets import COLD_CONNECTIONS, CONNECTIONS, CREATES, bearer, encoded

REDIRECTS, MISSES, CREATED = 50_000, 20_000, 2_000


async def measure(scene: Scene) -> dict[str, Counted]:
    """What was answered and counted of each row that can be counted exactly."""
    made: dict[str, Counted] = {}
    hot = scene.gateways["hot"].url
    made["linkmesh-hot"] = await _one_link(scene, hot, REDIRECTS)
    made["linkmesh-answer"] = await _kept(scene)
    made["linkmesh-asgi"] = await _one_link(scene, hot, REDIRECTS, encoded)
    made["linkmesh-zipf"] = await _many_links(scene, hot, links.zipf(scene.sizes.zipf, REDIRECTS, seed=2), REDIRECTS)
    warm = scene.gateways["warm"]
    made["linkmesh-warm"] = await _many_links(scene, warm.url, links.evenly(scene.sizes.warm, MISSES, seed=2), MISSES)
    if scene.sizes.cold:
        made["linkmesh-cold"] = await _cold(scene, warm.port)
    for name, connections in CREATES.items():
        made[name] = await _created(scene, f"{name}-exact", connections)
    for name, of in made.items():
        print(f"{name}: sent {of.sent}, answered {of.answered}, counted {of.counted}", file=sys.stderr)
    return made


def clicks(scene: Scene) -> Counter:
    """All clicks that analytics has counted so far."""
    return partial(counted.all_clicks, [scene.system.options.ports["analytics-admin"]])


async def _one_link(scene: Scene, gateway: str, count: int, spelled: Callable[[str], str] = str) -> Counted:
    code = await make_link(scene.system)
    answer = await _redirects([f"{gateway}/{spelled(code)}"], count)
    return await _of_statistics(scene, code, answer)


async def _kept(scene: Scene) -> Counted:
    """A gateway that sends nothing ends, and its clicks are sent by another one that shares its spools' place."""
    code = await make_link(scene.system)
    async with instances.running(scene.system, "gateway", "gateway-keeping", KEEPING) as gateway:
        processes.pin([gateway.pid], SERVER_CORE)
        answer = await _redirects([f"{gateway.url}/{code}"], REDIRECTS)
    return await _of_statistics(scene, code, answer)


async def _of_statistics(scene: Scene, code: str, answer: Exact) -> Counted:
    statistics = partial(counted.clicks_of, scene.system.gateway, scene.system.api_key, [code])
    return Counted(answer.sent, answer.answered, await counted.settled(statistics, answer.answered))


async def _many_links(scene: Scene, gateway: str, numbers: Sequence[int], count: int) -> Counted:
    before = await clicks(scene)()
    answer = await _redirects([f"{gateway}/{links.code_of(number)}" for number in numbers], count)
    count = await counted.settled(clicks(scene), before + answer.answered) - before
    return Counted(answer.sent, answer.answered, count)


async def _redirects(urls: Sequence[str], count: int) -> Exact:
    if fixed.available():
        return await fixed.run(urls, count=count, connections=CONNECTIONS, core=LOAD_CORE, headers=BROWSER)
    port, paths = _parts(urls)
    return await _closed_loop(port, open_loop.get_requests(port, paths, BROWSER), count)


async def _cold(scene: Scene, port: int) -> Counted:
    """Each link once: h2load would ask for the same ones on each connection, and find all but the first warm."""
    numbers = cold_numbers(scene.sizes)
    await links.drop_from_redis(scene.redis, numbers)
    before = await clicks(scene)()
    requests = open_loop.get_requests(port, [links.code_of(number) for number in numbers], BROWSER)
    answer = await _closed_loop(port, requests, len(requests), connections=COLD_CONNECTIONS)
    count = await counted.settled(clicks(scene), before + answer.answered) - before
    return Counted(answer.sent, answer.answered, count)


async def _created(scene: Scene, name: str, connections: int) -> Counted:
    port, body = scene.system.options.ports["gateway"], f'{{"long_url":"https://example.com/{name}/"}}'
    headers = bearer(scene)
    if fixed.available():
        url = f"{scene.system.gateway}/api/links"
        answer = await fixed.run(
            [url], count=CREATED, connections=connections, core=LOAD_CORE, headers=headers, body=body
        )
    else:
        answer = await _closed_loop(
            port, [open_loop.post_request(port, "api/links", headers, body)], CREATED, status=201
        )
    dynamodb = f"http://127.0.0.1:{scene.system.options.ports['dynamodb']}"
    return Counted(answer.sent, answer.answered, await persisted(dynamodb, name, answer.answered))


async def _closed_loop(
    port: int, requests: Sequence[str], count: int, *, status: int = 302, connections: int = CONNECTIONS
) -> Exact:
    order = [number % len(requests) for number in range(count)]
    plan = Plan(
        port=port, rate_per_s=0, connections=connections, requests=requests, order=order, status=status, core=LOAD_CORE
    )
    result = await open_loop.play(plan)
    return Exact(result.sent, result.answered)


def _parts(urls: Sequence[str]) -> tuple[int, list[str]]:
    """The port of some URLs of one server, and their paths."""
    parts = [urlsplit(url) for url in urls]
    return parts[0].port or 80, [
        f"{part.path.removeprefix('/')}{'?' if part.query else ''}{part.query}" for part in parts
    ]
