"""A TCP forwarder that lets every answer arrive later: `python -m tests.bench.delay UPSTREAM_PORT MILLISECONDS`.

Prints its own port. It counts what is going on: the most connections that were open at once, on the line `peak N` for
every line that it is given on stdin.
"""

import asyncio
import sys


class Peak:
    """How many connections are open, and were at most."""

    now = most = 0


async def main(upstream: int, delay: float) -> None:
    peak, loop = Peak(), asyncio.get_running_loop()

    async def forward(client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        peak.now += 1
        peak.most = max(peak.most, peak.now)
        server, there = await asyncio.open_connection("127.0.0.1", upstream)

        async def answers() -> None:
            while data := await server.read(2**16):
                loop.call_later(delay, back.write, data)

        task = asyncio.create_task(answers())
        try:
            while data := await client.read(2**16):
                there.write(data)
        except ConnectionError:
            pass
        finally:
            peak.now -= 1
            task.cancel()
            there.close()
            back.close()

    listening = await asyncio.start_server(forward, "127.0.0.1", 0)
    print(listening.sockets[0].getsockname()[1], flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(f"peak {peak.most}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]) / 1000))
