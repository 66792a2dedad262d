"""Part (c): whole requests over HTTP, alone, beside others, and beside a large one."""

import time

from scripts.benchmark.effort import Effort
from scripts.benchmark.load import (
    describe,
    kept_busy,
    percentile,
    send_all,
    share_outside,
)
from scripts.benchmark.machine import Facts
from scripts.benchmark.pictures import make_jpeg
from scripts.benchmark.server import Server

AVATAR_PX = 64
HEAD_START_S = 0.3


def measure_http(server: Server, effort: Effort) -> Facts:
    """Scale 4; sizes are of square inputs."""
    server.upscale(AVATAR_PX)
    return {
        "ready_s": round(server.ready_s, 2),
        "alone": {str(side): alone(server, side, n) for side, n in effort.alone.items()},
        "clients": {str(count): together(server, effort, count) for count in effort.clients},
        "beside_large": beside_large(server, effort),
        "small_images": small_images(server, effort),
    }


def alone(server: Server, side_px: int, count: int) -> Facts:
    """One after another; `stages_s` are medians."""
    send_all(server, [side_px], 1)
    answers, seconds = send_all(server, [side_px] * count, 1)
    stages = {
        name: round(percentile([answer.stages_s[name] for answer in answers], 0.5), 5)
        for name in answers[0].stages_s
    }
    return describe(answers, seconds) | {
        "stages_s": stages,
        "share_outside_network": round(share_outside(answers), 4),
        "result_bytes": answers[0].size_bytes,
    }


def together(server: Server, effort: Effort, clients: int) -> Facts:
    """Clients of mixed sizes, each taking the next one as soon as it has its answer."""
    count = clients * effort.per_client
    sides = [effort.mixed_px[at % len(effort.mixed_px)] for at in range(count)]
    return {"sides_px": list(effort.mixed_px)} | describe(*send_all(server, sides, clients))


def beside_large(server: Server, effort: Effort) -> Facts:
    """64x64 requests alone, then while a large image is always under way."""
    idle, _ = send_all(server, [AVATAR_PX] * effort.avatars, 1)
    poster = make_jpeg(effort.poster_px, effort.poster_px)
    with kept_busy(lambda: server.send(poster, effort.poster_px)) as posters_s:
        time.sleep(HEAD_START_S if not effort.is_tiny else 0)
        busy, _ = send_all(server, [AVATAR_PX] * effort.avatars, 1)
    idle_p95 = percentile([answer.seconds for answer in idle], 0.95)
    busy_p95 = percentile([answer.seconds for answer in busy], 0.95)
    return {
        "small_px": AVATAR_PX,
        "large_px": effort.poster_px,
        "large_s": [round(seconds, 3) for seconds in posters_s],
        "idle_p95_s": round(idle_p95, 4),
        "busy_p95_s": round(busy_p95, 4),
        "ratio": round(busy_p95 / idle_p95, 3),
    }


def small_images(server: Server, effort: Effort) -> Facts:
    """Many small images from several clients, against the same ones one at a time."""
    sides = [effort.small_px] * effort.small_images
    one_s = send_all(server, sides, 1)[1]
    many_s = send_all(server, sides, effort.small_clients)[1]
    return {
        "side_px": effort.small_px,
        "images": effort.small_images,
        "clients": effort.small_clients,
        "one_at_a_time_s": round(one_s, 3),
        "together_s": round(many_s, 3),
        "ratio": round(one_s / many_s, 3),
    }
