"""A real MCP server on the official Python SDK (mcp 2.3.0): every feature, both eras.

    .parts/venv/bin/python tests/parts/servers/python_sdk.py --port 0 [--json] [--stateless]

It serves 2026-07-28 and the `initialize` era side by side at /mcp, legacy with sessions.
--json answers POSTs with JSON instead of SSE; --stateless drops legacy sessions. Both cost
the legacy era its way back to the client (ask, sample, progress, logging).
"""

import warnings
from typing import Annotated

import anyio
from mcp.server import MCPServer, ServerRequestContext
from mcp.server.mcpserver import AcceptedElicitation, Context, Elicit, ElicitationResult, Resolve, Sample
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.session import ServerSession
from mcp.shared.exceptions import MCPDeprecationWarning
from mcp.types import (
    Completion,
    CreateMessageResult,
    EmptyResult,
    SamplingMessage,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    UnsubscribeRequestParams,
)
from pydantic import BaseModel, Field

from serve import arguments, serve

warnings.simplefilter("ignore", MCPDeprecationWarning)  # logging: deprecated in 2026-07-28, still on the wire

NOTE = "note://shared"
CITIES = ["Basel", "Berlin", "Bern", "Zürich"]

mcp = MCPServer("python-sdk", version="2.3.0", instructions="A test server with every feature.", log_level="WARNING")


# Tools: plain calls


class Sum(BaseModel):
    sum: float


@mcp.tool()
def echo(text: str) -> str:
    """Returns its text."""
    return text


@mcp.tool()
def add(a: float, b: float) -> Sum:
    """Adds two numbers; the answer is structured content."""
    return Sum(sum=a + b)


@mcp.tool(structured_output=False)
def big(n: int) -> str:
    """Returns n bytes of text."""
    return "x" * n


@mcp.tool()
def fail(reason: str = "asked to") -> str:
    """Always ends in a result with isError."""
    raise ToolError(f"failed: {reason}")


@mcp.tool()
def route(region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})]) -> str:
    """Returns its region, which modern clients repeat in the header Mcp-Param-Region."""
    return region


@mcp.tool()
def headers(ctx: Context) -> dict[str, str]:
    """The HTTP headers this very call arrived with."""
    return dict(ctx.headers or {})


# Tools: while running


class Cancelled(BaseModel):
    count: int


cancelled_calls = 0


@mcp.tool()
async def slow(ms: int, ctx: Context, steps: int = 4) -> str:
    """Takes ms milliseconds; after each of its steps it reports progress and logs a line."""
    global cancelled_calls
    try:
        for step in range(1, steps + 1):
            await anyio.sleep(ms / steps / 1000)
            await ctx.report_progress(step, steps, f"step {step}")
            await ctx.info(f"step {step} of {steps}", logger_name="slow")
    except anyio.get_cancelled_exc_class():
        cancelled_calls += 1
        raise
    return f"slept {ms} ms"


@mcp.tool()
def cancelled() -> Cancelled:
    """How many `slow` calls were cancelled since the server started."""
    return Cancelled(count=cancelled_calls)


# Tools: back to the client. Resolve sends elicitation/create and sampling/createMessage in the
# legacy era and answers input_required (MRTR) in the modern one.


class Name(BaseModel):
    name: str


def ask_name() -> Elicit[Name]:
    return Elicit("What is your name?", Name)


def ask_model(prompt: str) -> Sample:
    return Sample([SamplingMessage(role="user", content=TextContent(type="text", text=prompt))], max_tokens=50)


@mcp.tool()
def ask(answer: Annotated[ElicitationResult[Name], Resolve(ask_name)]) -> str:
    """Asks the user for a name (elicitation) and greets it."""
    return f"Hello, {answer.data.name}!" if isinstance(answer, AcceptedElicitation) else f"no name: {answer.action}"


@mcp.tool()
def sample(prompt: str, answer: Annotated[CreateMessageResult, Resolve(ask_model)]) -> str:
    """Asks the client's model (sampling) and returns what it said."""
    return f"the model said: {answer.content.text}" if answer.content.type == "text" else "no text"


# Resources, with one that can be subscribed to

touches = 0
legacy_subscribers: dict[str, ServerSession] = {}


@mcp.resource("memo://static", mime_type="text/plain")
def memo() -> str:
    """A resource that never changes."""
    return "a static memo"


@mcp.resource("city://{name}", mime_type="text/plain")
def city(name: str) -> str:
    """A resource template."""
    return f"about {name}"


@mcp.resource(NOTE, mime_type="text/plain")
def note() -> str:
    """Counts the calls of the tool `touch`, which tell its subscribers."""
    return f"touched {touches} times"


@mcp.tool()
async def touch(ctx: Context) -> str:
    """Changes note://shared and tells every subscriber, of both eras and of any session."""
    global touches
    touches += 1
    await ctx.notify_resource_updated(NOTE)
    for session in list(legacy_subscribers.values()):
        await session.send_resource_updated(NOTE)
    return f"touched {touches} times"


def session_id(ctx: ServerRequestContext) -> str:
    return ctx.request.headers.get("mcp-session-id", "") if ctx.request else ""


async def subscribe(ctx: ServerRequestContext, params: SubscribeRequestParams) -> EmptyResult:
    if str(params.uri) == NOTE:
        legacy_subscribers[session_id(ctx)] = ctx.session
    return EmptyResult()


async def unsubscribe(ctx: ServerRequestContext, params: UnsubscribeRequestParams) -> EmptyResult:
    legacy_subscribers.pop(session_id(ctx), None)
    return EmptyResult()


async def set_level(ctx: ServerRequestContext, params: SetLevelRequestParams) -> EmptyResult:
    return EmptyResult()  # accepted; `slow` logs at info whatever was asked


# MCPServer offers no public way to serve these three; the SDK's own conformance server does the same.
for method, params_type, handler in [
    ("resources/subscribe", SubscribeRequestParams, subscribe),
    ("resources/unsubscribe", UnsubscribeRequestParams, unsubscribe),
    ("logging/setLevel", SetLevelRequestParams, set_level),
]:
    mcp._lowlevel_server.add_request_handler(method, params_type, handler)


# Prompts and completion


@mcp.prompt()
def greet(name: str) -> str:
    """Asks for a greeting."""
    return f"Please greet {name}."


@mcp.completion()
async def complete(ref, argument, context) -> Completion:
    """Completes every argument with the cities that begin with it."""
    values = [city for city in CITIES if city.lower().startswith(argument.value.lower())]
    return Completion(values=values, total=len(values), has_more=False)


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--json", action="store_true", help="answer POSTs with JSON, never SSE")
    parser.add_argument("--stateless", action="store_true", help="no legacy sessions")
    options = parser.parse_args()
    serve(mcp.streamable_http_app(json_response=options.json, stateless_http=options.stateless), options.port)
