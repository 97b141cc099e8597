"""What both Python test servers share: the loopback socket, the ready line, the stop.

`ready <port>` goes to stdout once the application accepts requests; everything else the
server says goes to stderr. SIGTERM stops it within a second, open streams or not.
"""

import argparse
import socket

import uvicorn


def arguments(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="0: any free port, see the ready line")
    return parser


class Announcing(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started and sockets:
            print("ready", sockets[0].getsockname()[1], flush=True)


def serve(app, port: int) -> None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    # uvicorn's access log would go to stdout, where only the ready line belongs.
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    Announcing(config).run(sockets=[listener])
