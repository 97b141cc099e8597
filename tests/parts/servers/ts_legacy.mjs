// A real MCP server on the older TypeScript SDK (@modelcontextprotocol/sdk 1.32.2), as most
// deployed ones are: legacy era only, with sessions.
//
//   .parts/bin/node tests/parts/servers/ts_legacy.mjs --port 0
//
// At /mcp: an event store, so every SSE stream opens with a priming event and can be resumed by
// GET with Last-Event-ID. POST /expire forgets all sessions without telling anyone, which is how
// a restarted upstream looks: the next request of each session gets 404.
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { part } from '../resolve.mjs';
import { listen } from './listen.mjs';

const { McpServer } = part('@modelcontextprotocol/sdk/server/mcp.js');
const { StreamableHTTPServerTransport } = part('@modelcontextprotocol/sdk/server/streamableHttp.js');
const { createMcpExpressApp } = part('@modelcontextprotocol/sdk/server/express.js');
const { isInitializeRequest } = part('@modelcontextprotocol/sdk/types.js');
const { z } = part('zod');

const NOTE = 'note://shared';
let touches = 0;
let cancelledCalls = 0;
const sessions = new Map(); // id -> { transport, server, subscribed }

const text = (value) => ({ content: [{ type: 'text', text: value }] });
const structured = (value) => ({ ...text(JSON.stringify(value)), structuredContent: value });

/** Keeps every event in memory and replays those of one stream after a given one. */
class EventStore {
  events = [];
  async storeEvent(streamId, message) {
    this.events.push({ streamId, message });
    return String(this.events.length);
  }
  async replayEventsAfter(lastEventId, { send }) {
    const { streamId } = this.events[Number(lastEventId) - 1] ?? {};
    for (let i = Number(lastEventId); streamId && i < this.events.length; i++)
      if (this.events[i].streamId === streamId) await send(String(i + 1), this.events[i].message);
    return streamId;
  }
}

async function slow({ ms, steps = 4 }, extra) {
  const progressToken = extra._meta?.progressToken;
  try {
    for (let step = 1; step <= steps; step++) {
      await sleep(ms / steps, undefined, { signal: extra.signal });
      if (progressToken !== undefined)
        await extra.sendNotification({
          method: 'notifications/progress',
          params: { progressToken, progress: step, total: steps, message: `step ${step}` },
        });
      await extra.sendNotification({
        method: 'notifications/message',
        params: { level: 'info', logger: 'slow', data: `step ${step} of ${steps}` },
      });
    }
  } catch (error) {
    if (extra.signal.aborted) cancelledCalls++;
    throw error;
  }
  return text(`slept ${ms} ms`);
}

/** Closes the call's SSE stream half way, as servers that make clients poll do; the result waits for the GET. */
async function drop(_, extra) {
  extra.closeSSEStream?.();
  await sleep(100);
  return text('picked up again');
}

async function touch() {
  touches++;
  for (const { server, subscribed } of sessions.values())
    if (subscribed.has(NOTE)) await server.server.sendResourceUpdated({ uri: NOTE });
  return text(`touched ${touches} times`);
}

function build(subscribed) {
  const server = new McpServer(
    { name: 'ts-legacy', version: '1.32.2' },
    { capabilities: { logging: {}, resources: { subscribe: true } } },
  );
  const tool = (name, description, inputSchema, run, outputSchema) =>
    server.registerTool(name, { description, inputSchema, outputSchema }, run);

  tool('echo', 'Returns its text.', { text: z.string() }, ({ text: said }) => text(said));
  tool('add', 'Adds two numbers; the answer is structured content.', { a: z.number(), b: z.number() },
    ({ a, b }) => structured({ sum: a + b }), { sum: z.number() });
  tool('slow', 'Takes ms milliseconds; after each of its steps it reports progress and logs a line.',
    { ms: z.number(), steps: z.number().optional() }, slow);
  tool('cancelled', 'How many `slow` calls were cancelled since the server started.', {},
    () => structured({ count: cancelledCalls }), { count: z.number() });
  tool('drop', 'Closes its SSE stream before the result, which a GET with Last-Event-ID then delivers.', {}, drop);
  tool('touch', 'Changes note://shared and tells its subscribers.', {}, touch);
  tool('headers', 'The HTTP headers this very call arrived with.', {}, (_, extra) => structured(extra.requestInfo.headers));
  tool('ask', 'Asks the user for a name (elicitation/create) and greets it.', {}, async (_, extra) => {
    const answer = await server.server.elicitInput(
      {
        message: 'What is your name?',
        requestedSchema: { type: 'object', properties: { name: { type: 'string' } }, required: ['name'] },
      },
      { relatedRequestId: extra.requestId },
    );
    return text(answer.action === 'accept' ? `Hello, ${answer.content.name}!` : `no name: ${answer.action}`);
  });
  tool('sample', "Asks the client's model (sampling/createMessage) and returns what it said.", { prompt: z.string() },
    async ({ prompt }, extra) => {
      const answer = await server.server.createMessage(
        { messages: [{ role: 'user', content: { type: 'text', text: prompt } }], maxTokens: 50 },
        { relatedRequestId: extra.requestId },
      );
      return text(`the model said: ${answer.content.text}`);
    });

  const plain = (uri, read) =>
    server.registerResource(uri, uri, { mimeType: 'text/plain' }, async () => ({ contents: [{ uri, text: read() }] }));
  plain('memo://static', () => 'a static memo');
  plain(NOTE, () => `touched ${touches} times`);
  const { SubscribeRequestSchema, UnsubscribeRequestSchema } = part('@modelcontextprotocol/sdk/types.js');
  server.server.setRequestHandler(SubscribeRequestSchema, ({ params }) => (subscribed.add(params.uri), {}));
  server.server.setRequestHandler(UnsubscribeRequestSchema, ({ params }) => (subscribed.delete(params.uri), {}));
  server.registerPrompt('greet', { description: 'Asks for a greeting.', argsSchema: { name: z.string() } },
    ({ name }) => ({ messages: [{ role: 'user', content: { type: 'text', text: `Please greet ${name}.` } }] }));
  return server;
}

async function openSession() {
  const subscribed = new Set();
  const server = build(subscribed);
  const transport = new StreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    eventStore: new EventStore(),
    retryInterval: 100,
    onsessioninitialized: (id) => void sessions.set(id, { transport, server, subscribed }),
  });
  transport.onclose = () => sessions.delete(transport.sessionId);
  await server.connect(transport);
  return transport;
}

const refuse = (response, status, code, message) =>
  response.status(status).json({ jsonrpc: '2.0', error: { code, message }, id: null });

const app = createMcpExpressApp();

// The routing of the SDK's own examples: 404 for a session it does not know, 400 for none at all.
app.all('/mcp', async (request, response) => {
  const id = request.headers['mcp-session-id'];
  const session = sessions.get(id);
  if (id && !session) return refuse(response, 404, -32001, 'Session not found');
  if (!session && !isInitializeRequest(request.body))
    return refuse(response, 400, -32000, 'Bad Request: No valid session ID provided');
  const transport = session?.transport ?? (await openSession());
  await transport.handleRequest(request, response, request.body);
});

app.post('/expire', (_, response) => {
  const expired = sessions.size;
  sessions.clear(); // not closed: their streams stay open, as after a failover
  response.json({ expired });
});

listen(createServer(app));
