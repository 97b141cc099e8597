// A real MCP client on the older TypeScript SDK (@modelcontextprotocol/sdk 1.32.2), which speaks
// the legacy era only, as most deployed hosts do; one scenario per run, see scenarios.mjs.
//
//   .parts/bin/node tests/e2e/ts_legacy_client.mjs --url http://127.0.0.1:8080/mcp/x --scenario tools
import { part } from '../parts/resolve.mjs';
import { main } from './scenarios.mjs';

const { Client } = part('@modelcontextprotocol/sdk/client/index.js');
const { StreamableHTTPClientTransport } = part('@modelcontextprotocol/sdk/client/streamableHttp.js');
const {
  ElicitRequestSchema, CreateMessageRequestSchema, LoggingMessageNotificationSchema, ResourceUpdatedNotificationSchema,
} = part('@modelcontextprotocol/sdk/types.js');

/** All pages of a list, which this SDK leaves to its caller. */
async function pages(list, key) {
  const items = [];
  let cursor;
  do {
    const page = await list({ cursor });
    items.push(...page[key]);
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  return items;
}

await main(async ({ url, era, headers, on }) => {
  if (era === 'modern') throw new Error('this SDK has no modern era');
  const client = new Client(
    { name: 'ts-legacy-client', version: '1.32.2' },
    { capabilities: { elicitation: {}, sampling: {} } },
  );
  client.setRequestHandler(ElicitRequestSchema, ({ params }) => on.elicit(params));
  client.setRequestHandler(CreateMessageRequestSchema, ({ params }) => on.sample(params));
  client.setNotificationHandler(LoggingMessageNotificationSchema, ({ params }) => on.log?.(params));
  client.setNotificationHandler(ResourceUpdatedNotificationSchema, ({ params }) => on.updated?.(params));

  const transport = new StreamableHTTPClientTransport(url, { requestInit: { headers } });
  await client.connect(transport);
  return {
    version: transport.protocolVersion,
    tools: () => pages((params) => client.listTools(params), 'tools'),
    call: (name, args, options) => client.callTool({ name, arguments: args }, undefined, options),
    resources: () => pages((params) => client.listResources(params), 'resources'),
    templates: () => pages((params) => client.listResourceTemplates(params), 'resourceTemplates'),
    read: (uri) => client.readResource({ uri }),
    prompts: () => pages((params) => client.listPrompts(params), 'prompts'),
    prompt: (name, args) => client.getPrompt({ name, arguments: args }),
    logLevel: (level) => client.setLoggingLevel(level),
    watch: (uri) => client.subscribeResource({ uri }),
    close: async () => {
      await transport.terminateSession();
      await client.close();
    },
  };
});
