#!/usr/bin/env python3
"""A real MCP client on the official Python SDK (mcp 2.3.0), one scenario per run.

    .parts/venv/bin/python tests/e2e/python_client.py --url http://127.0.0.1:8080/mcp/x --scenario tools

Talks to any of the servers in tests/parts/servers, directly or through the gateway. Prints one
line, {"scenario": ..., "ok": true, "observed": {...}}, and exits 0 only when everything seen
was as expected. Without --era the SDK negotiates. --prefix goes before the names of tools and
prompts, for the gateway's endpoint over all servers; --header adds one to every request.
"""

import argparse
import functools
import json
import os
import sys
import threading
import time
import warnings

import anyio
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.exceptions import MCPDeprecationWarning
from mcp.types import (
    CreateMessageResult,
    ElicitResult,
    ResourceUpdatedNotification,
    TextContent,
)

warnings.simplefilter("ignore", MCPDeprecationWarning)  # logging and setLevel are still spoken

DEADLINE = 10
NOTE = "note://shared"
MODERN = "2026-07-28"

observed: dict = {}


class Unexpected(Exception):
    pass


def expect(name: str, seen, wanted) -> None:
    observed[name] = seen
    if seen != wanted:
        raise Unexpected(f"{name}: {seen!r}, not {wanted!r}")


class Scenarios:
    """One method per scenario; each tells what it saw through `expect`."""

    def __init__(self, url: str, era: str | None, prefix: str, headers: dict[str, str]) -> None:
        self.url, self.prefix, self.headers = url, prefix, headers
        self.mode = {"legacy": "legacy", "modern": MODERN, None: "auto"}[era]

    def client(self, **callbacks) -> Client:
        transport = streamable_http_client(self.url, http_client=create_mcp_http_client(headers=self.headers))
        return Client(transport, mode=self.mode, cache=None, **callbacks)

    async def call(self, client: Client, tool: str, arguments: dict | None = None, **options):
        observed["protocol_version"] = client.protocol_version
        return await client.call_tool(self.prefix + tool, arguments or {}, **options)

    async def all_tools(self, client: Client) -> list:
        tools, cursor = [], None
        while True:
            page = await client.list_tools(cursor=cursor)
            tools += page.tools
            if (cursor := page.next_cursor) is None:
                return tools

    async def tools(self) -> None:
        async with self.client() as client:
            listed = [tool.name for tool in await self.all_tools(client)]
            names = {name.removeprefix(self.prefix) for name in listed if name.startswith(self.prefix)}
            observed["tools"] = len(names)
            expect("listed", sorted(names & {"echo", "add"}), ["add", "echo"])
            result = await self.call(client, "echo", {"text": "héllo"})
            expect("echo", text_of(result), "héllo")
            result = await self.call(client, "add", {"a": 2, "b": 3})
            expect("sum", result.structured_content["sum"], 5)
            if "route" in names:  # has an x-mcp-header parameter; non-ASCII travels encoded
                result = await self.call(client, "route", {"region": "zürich"})
                expect("route", text_of(result), "zürich")
            if "fail" in names:
                expect("fail", (await self.call(client, "fail")).is_error, True)

    async def reshaped(self) -> None:
        """Where the gateway takes `sum` from what `add` answers and cuts `echo` to 20 bytes."""
        async with self.client() as client:
            schemas = {tool.name.removeprefix(self.prefix): tool.output_schema for tool in await self.all_tools(client)}
            expect("promised", [name for name in ("add", "echo", "route") if schemas[name] is not None], ["route"])
            result = await self.call(client, "add", {"a": 19, "b": 23})
            expect("add", (text_of(result), result.structured_content), ("{}", {}))
            result = await self.call(client, "echo", {"text": "0123456789" * 5})
            expect("echo", (text_of(result)[:21], result.structured_content), ("0123456789" * 2 + "…", None))

    async def progress(self) -> None:
        steps: list[float] = []

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            steps.append(progress)

        async with self.client() as client:
            result = await self.call(client, "slow", {"ms": 200}, progress_callback=on_progress)
            expect("result", text_of(result), "slept 200 ms")
            expect("progress", steps, [1, 2, 3, 4])

    async def logging(self) -> None:
        lines: list[str] = []

        async def on_log(params) -> None:
            lines.append(f"{params.level} {params.logger}: {params.data}")

        async with self.client(logging_callback=on_log, log_level="info") as client:
            if client.protocol_version != MODERN:
                await client.set_logging_level("info")
            result = await self.call(client, "slow", {"ms": 200})
            expect("result", text_of(result), "slept 200 ms")
            expect("log", lines, [f"info slow: step {step} of 4" for step in range(1, 5)])

    async def elicitation(self) -> None:
        async def on_elicit(context, params) -> ElicitResult:
            observed["question"] = params.message
            return ElicitResult(action="accept", content={"name": "Ada"})

        async with self.client(elicitation_callback=on_elicit) as client:
            result = await self.call(client, "ask")
            expect("result", text_of(result), "Hello, Ada!")
            expect("question", observed.get("question"), "What is your name?")

    async def sampling(self) -> None:
        async def on_sample(context, params) -> CreateMessageResult:
            observed["prompt"] = params.messages[0].content.text
            return CreateMessageResult(role="assistant", model="none", content=TextContent(type="text", text="blue"))

        async with self.client(sampling_callback=on_sample) as client:
            result = await self.call(client, "sample", {"prompt": "a colour"})
            expect("result", text_of(result), "the model said: blue")
            expect("prompt", observed.get("prompt"), "a colour")

    async def subscribe(self) -> None:
        updated = anyio.Event()

        async def on_message(message) -> None:
            if isinstance(message, ResourceUpdatedNotification):
                observed["updated"] = str(message.params.uri)
                updated.set()

        async with self.client(message_handler=on_message) as client:
            if client.protocol_version == MODERN:
                async with client.listen(resource_subscriptions=[NOTE]) as subscription:
                    expect("honored", subscription.honored.resource_subscriptions, [NOTE])
                    await self.call(client, "touch")
                    expect("updated", (await anext(subscription)).uri, NOTE)
                return
            await client.subscribe_resource(NOTE)
            # The session's GET stream may not be open yet, and what is sent before it is lost.
            while not updated.is_set():
                await self.call(client, "touch")
                with anyio.move_on_after(0.3):
                    await updated.wait()
            expect("updated", observed.get("updated"), NOTE)
            await client.unsubscribe_resource(NOTE)

    async def cancel(self) -> None:
        """The SDK may lose a race with itself at the end: the answer to a call that was given up arrives while its own
        streams are being closed, and it writes into them. That is said to nobody but us, after all was seen."""
        seen: list[bool] = []
        try:
            await self._cancelled(seen)
        except BaseExceptionGroup as error:
            broken, rest = error.split(anyio.BrokenResourceError)
            if not seen or rest is not None:
                raise
            print(f"the SDK closed on itself: {broken}", file=sys.stderr)
        except anyio.BrokenResourceError:
            if not seen:
                raise

    async def _cancelled(self, seen: list[bool]) -> None:
        async with self.client() as client:

            async def count() -> int:
                return (await self.call(client, "cancelled")).structured_content["count"]

            before, started = await count(), time.monotonic()
            with anyio.move_on_after(0.5) as scope:
                await self.call(client, "slow", {"ms": 60_000})
            expect("call_ended", scope.cancelled_caught, True)
            while (after := await count()) == before and time.monotonic() < started + 5:
                await anyio.sleep(0.05)
            expect("cancelled_upstream", after - before, 1)
            seen.append(True)

    async def resources(self) -> None:
        async with self.client() as client:
            listed = {str(resource.uri) for resource in (await client.list_resources()).resources}
            expect("listed", "memo://static" in listed, True)
            contents = (await client.read_resource("memo://static")).contents
            expect("read", contents[0].text, "a static memo")
            templates = (await client.list_resource_templates()).resource_templates
            if any(template.uri_template == "city://{name}" for template in templates):
                contents = (await client.read_resource("city://Bern")).contents
                expect("template", contents[0].text, "about Bern")

    async def prompts(self) -> None:
        async with self.client() as client:
            name = self.prefix + "greet"
            expect("listed", name in {prompt.name for prompt in (await client.list_prompts()).prompts}, True)
            prompt = await client.get_prompt(name, {"name": "Ada"})
            expect("prompt", prompt.messages[0].content.text, "Please greet Ada.")


def text_of(result) -> str:
    return result.content[0].text


def causes(error: BaseException) -> list[str]:
    if isinstance(error, BaseExceptionGroup):
        return [cause for inner in error.exceptions for cause in causes(inner)]
    return [f"{type(error).__name__}: {error}"]


def report(scenario: str, error: str | None) -> None:
    """Prints the one line and ends the process, whatever tasks or threads still hang."""
    line = {"scenario": scenario, "ok": error is None, "observed": observed}
    if error is not None:
        line["error"] = error
    print(json.dumps(line, default=str), flush=True)
    os._exit(0 if error is None else 1)


def main() -> None:
    names = [name for name in vars(Scenarios) if not name.startswith("_")]
    scenarios = [name for name in names if name not in ("client", "call", "all_tools")]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--era", choices=["legacy", "modern"])
    parser.add_argument("--scenario", required=True, choices=scenarios)
    parser.add_argument("--prefix", default="")
    parser.add_argument("--header", action="append", default=[], metavar="NAME:VALUE")
    options = parser.parse_args()
    headers = {name.strip(): value.strip() for name, _, value in (h.partition(":") for h in options.header)}

    late = functools.partial(report, options.scenario, f"no end within {DEADLINE} s")
    watchdog = threading.Timer(DEADLINE, late)
    watchdog.daemon = True
    watchdog.start()
    try:
        run = Scenarios(options.url, options.era, options.prefix, headers)
        anyio.run(getattr(run, options.scenario))
    except BaseException as error:  # an ExceptionGroup as a rule: it must become the one line as well
        report(options.scenario, "; ".join(causes(error)))
    report(options.scenario, None)


if __name__ == "__main__":
    main()
