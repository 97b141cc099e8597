// A real MCP client on the official TypeScript SDK (@modelcontextprotocol/client 2.4.0), one
// scenario per run; see scenarios.mjs. Without --era it probes with server/discover first.
//
//   .parts/bin/node tests/e2e/ts_client.mjs --url http://127.0.0.1:8080/mcp/x --era modern --scenario tools
import { part } from '../parts/resolve.mjs';
import { main } from './scenarios.mjs';

const { Client, StreamableHTTPClientTransport, LOG_LEVEL_META_KEY } = part('@modelcontextprotocol/client');

const MODES = { legacy: 'legacy', modern: { pin: '2026-07-28' } };

await main(async ({ url, era, headers, on }) => {
  const client = new Client(
    { name: 'ts-client', version: '2.4.0' },
    { capabilities: { elicitation: {}, sampling: {} }, versionNegotiation: { mode: MODES[era] ?? 'auto' } },
  );
  client.setRequestHandler('elicitation/create', ({ params }) => on.elicit(params));
  client.setRequestHandler('sampling/createMessage', ({ params }) => on.sample(params));
  client.setNotificationHandler('notifications/message', ({ params }) => on.log?.(params));
  client.setNotificationHandler('notifications/resources/updated', ({ params }) => on.updated?.(params));

  await client.connect(new StreamableHTTPClientTransport(url, { requestInit: { headers } }));
  const modern = client.getProtocolEra() === 'modern';
  let meta; // what the modern era has instead of logging/setLevel: asked for in every request
  return {
    version: client.getNegotiatedProtocolVersion(),
    tools: async () => (await client.listTools()).tools, // all pages
    call: (name, args, options) => client.callTool({ name, arguments: args, _meta: meta }, options),
    resources: async () => (await client.listResources()).resources,
    templates: async () => (await client.listResourceTemplates()).resourceTemplates,
    read: (uri) => client.readResource({ uri }),
    prompts: async () => (await client.listPrompts()).prompts,
    prompt: (name, args) => client.getPrompt({ name, arguments: args }),
    logLevel: (level) => (modern ? void (meta = { [LOG_LEVEL_META_KEY]: level }) : client.setLoggingLevel(level)),
    watch: (uri) => (modern ? client.listen({ resourceSubscriptions: [uri] }) : client.subscribeResource({ uri })),
    close: () => client.close(),
  };
});
