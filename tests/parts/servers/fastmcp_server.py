"""A real MCP server on FastMCP 4.1.0, the framework many deployed Python servers use.

    .parts/venv/bin/python tests/parts/servers/fastmcp_server.py --port 0

Both eras at /mcp, legacy with sessions. Host and Origin are checked as by `mcp.run(host="127.0.0.1")`.
"""

from fastmcp import FastMCP

from serve import arguments, serve

mcp = FastMCP("fastmcp", version="4.1.0")


@mcp.tool
def echo(text: str) -> str:
    """Returns its text."""
    return text


@mcp.tool
def add(a: float, b: float) -> dict[str, float]:
    """Adds two numbers; the answer is structured content."""
    return {"sum": a + b}


@mcp.resource("memo://static", mime_type="text/plain")
def memo() -> str:
    """A resource that never changes."""
    return "a static memo"


@mcp.prompt
def greet(name: str) -> str:
    """Asks for a greeting."""
    return f"Please greet {name}."


if __name__ == "__main__":
    options = arguments(__doc__).parse_args()
    app = mcp.http_app(path="/mcp", host_origin_protection="auto", allowed_hosts=["127.0.0.1"])
    serve(app, options.port)
