// A real MCP server on the official TypeScript SDK (@modelcontextprotocol/server 2.4.0).
//
//   .parts/bin/node tests/parts/servers/ts_server.mjs --port 0
//
// Dual era and stateless at /mcp: 2026-07-28 natively, older clients without a session (GET and
// DELETE answer 405). Its tools come in pages of three; `route` carries x-mcp-header; `ask` and
// `sample` answer input_required (MRTR) to modern clients.
import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { part } from '../resolve.mjs';
import { bridge, listen } from './listen.mjs';

const {
  McpServer, createMcpHandler, fromJsonSchema, inputRequired, inputResponse,
  hostHeaderValidationResponse, originValidationResponse, localhostAllowedHostnames, localhostAllowedOrigins,
} = part('@modelcontextprotocol/server');

const PAGE = 3;
const NOTE = 'note://shared';
let touches = 0;
let cancelledCalls = 0;

const text = (value) => ({ content: [{ type: 'text', text: value }] });
const structured = (value) => ({ ...text(JSON.stringify(value)), structuredContent: value });
const object = (properties, required = Object.keys(properties)) => ({ type: 'object', properties, required });
const string = { type: 'string' };
const number = { type: 'number' };

async function slow({ ms, steps = 4 }, ctx) {
  const { signal, _meta, notify, log } = ctx.mcpReq;
  try {
    for (let step = 1; step <= steps; step++) {
      await sleep(ms / steps, undefined, { signal });
      if (_meta?.progressToken !== undefined)
        await notify({
          method: 'notifications/progress',
          params: { progressToken: _meta.progressToken, progress: step, total: steps, message: `step ${step}` },
        });
      await log('info', `step ${step} of ${steps}`, 'slow');
    }
  } catch (error) {
    if (signal.aborted) cancelledCalls++;
    throw error;
  }
  return text(`slept ${ms} ms`);
}

function ask(_, ctx) {
  const answer = inputResponse(ctx.mcpReq.inputResponses, 'name');
  if (answer.kind === 'elicit')
    return text(answer.action === 'accept' ? `Hello, ${answer.content.name}!` : `no name: ${answer.action}`);
  const question = inputRequired.elicit({ message: 'What is your name?', requestedSchema: object({ name: string }) });
  return inputRequired({ inputRequests: { name: question }, requestState: 'asked once' });
}

function sample({ prompt }, ctx) {
  const answer = inputResponse(ctx.mcpReq.inputResponses, 'model');
  if (answer.kind === 'sampling') return text(`the model said: ${[answer.result.content].flat()[0].text}`);
  const messages = [{ role: 'user', content: { type: 'text', text: prompt } }];
  return inputRequired({ inputRequests: { model: inputRequired.createMessage({ messages, maxTokens: 50 }) } });
}

function touch() {
  touches++;
  handler.notify.resourceUpdated(NOTE);
  return text(`touched ${touches} times`);
}

// name: [what it does, input schema, the handler, output schema]
const TOOLS = {
  echo: ['Returns its text.', object({ text: string }), ({ text: said }) => text(said)],
  add: ['Adds two numbers; the answer is structured content.', object({ a: number, b: number }),
    ({ a, b }) => structured({ sum: a + b }), object({ sum: number })],
  route: ['Returns its region, which modern clients repeat in the header Mcp-Param-Region.',
    object({ region: { ...string, 'x-mcp-header': 'Region' } }), ({ region }) => text(region)],
  fail: ['Always ends in a result with isError.', object({}), () => ({ ...text('failed: asked to'), isError: true })],
  slow: ['Takes ms milliseconds; after each of its steps it reports progress and logs a line.',
    object({ ms: number, steps: number }, ['ms']), slow],
  cancelled: ['How many `slow` calls were cancelled since the server started.', object({}),
    () => structured({ count: cancelledCalls }), object({ count: number })],
  ask: ['Asks the user for a name (elicitation) and greets it.', object({}), ask],
  sample: ["Asks the client's model (sampling) and returns what it said.", object({ prompt: string }), sample],
  touch: ['Changes note://shared and tells its subscribers.', object({}), touch],
  headers: ['The HTTP headers this very call arrived with.', object({}),
    (_, ctx) => structured(Object.fromEntries(ctx.http.req.headers))],
};

// The SDK lists all tools at once; this puts its pages in front. Cursors are opaque to clients.
function listPages(server) {
  const tools = Object.entries(TOOLS).map(([name, [description, inputSchema, , outputSchema]]) =>
    ({ name, description, inputSchema, outputSchema }));
  server.server.setRequestHandler('tools/list', ({ params }) => {
    const start = params?.cursor === undefined ? 0 : Number(Buffer.from(params.cursor, 'base64url'));
    const next = start + PAGE;
    const nextCursor = next < tools.length ? Buffer.from(String(next)).toString('base64url') : undefined;
    return { tools: tools.slice(start, next), nextCursor };
  });
}

function build({ era }) {
  // Subscriptions need a stream that outlives the request, which the sessionless legacy side lacks.
  const resources = { subscribe: era === 'modern' };
  const server = new McpServer({ name: 'ts-server', version: '2.4.0' }, { capabilities: { logging: {}, resources } });
  for (const [name, [description, inputSchema, run, outputSchema]] of Object.entries(TOOLS))
    server.registerTool(name, {
      description,
      inputSchema: fromJsonSchema(inputSchema),
      outputSchema: outputSchema && fromJsonSchema(outputSchema),
    }, run);
  listPages(server);
  const plain = (uri, read) =>
    server.registerResource(uri, uri, { mimeType: 'text/plain' }, async () => ({ contents: [{ uri, text: read() }] }));
  plain('memo://static', () => 'a static memo');
  plain(NOTE, () => `touched ${touches} times`);
  server.registerPrompt('greet', { description: 'Asks for a greeting.', argsSchema: fromJsonSchema(object({ name: string })) },
    ({ name }) => ({ messages: [{ role: 'user', content: { type: 'text', text: `Please greet ${name}.` } }] }));
  return server;
}

const handler = createMcpHandler(build);

// The checks the SDK tells its users to put in front of the handler.
const guarded = async (request) =>
  hostHeaderValidationResponse(request, localhostAllowedHostnames()) ??
  originValidationResponse(request, localhostAllowedOrigins()) ??
  (new URL(request.url).pathname === '/mcp' ? handler.fetch(request) : new Response('not found', { status: 404 }));

listen(createServer(bridge(guarded)));
