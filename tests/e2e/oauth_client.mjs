// A real MCP client (@modelcontextprotocol/client 2.4.0) that is given nothing but the URL of a
// protected server and finds, with the SDK's own OAuth, everything else: the resource's metadata,
// its authorization server, a registration, a token. One scenario per run:
//
//   reach    without a token it gets 401; authorized, it lists the tools and calls --read-tool
//   step_up  then --write-tool, whose 403 asks for more scope: the SDK asks for it, the call succeeds
//
//   .parts/bin/node tests/e2e/oauth_client.mjs --url http://127.0.0.1:8080/mcp/x --era modern --scenario step_up
//
// The authorization server must finish by redirects alone, as authorization_server.mjs does.
// Prints {"scenario":…,"ok":true,"observed":{…}} and exits 0 only when all was as expected;
// observed.requests is every HTTP request of the SDK in order, observed.authorizations the scope each asked for.
import { randomUUID } from 'node:crypto';
import { parseArgs } from 'node:util';
import { part } from '../parts/resolve.mjs';

const { Client, StreamableHTTPClientTransport, UnauthorizedError } = part('@modelcontextprotocol/client');

const MODES = { legacy: 'legacy', modern: { pin: '2026-07-28' } };
const REDIRECT = 'http://127.0.0.1:9/callback'; // nothing listens: the browser stops in front of it
const DEADLINE = 10_000;

const observed = { requests: [], authorizations: [], granted: [] };

function expect(what, seen, wanted) {
  if (seen !== wanted) throw new Error(`${what}: ${seen}, not ${wanted}`);
}

/** fetch, with a note of every request and its status. */
async function fetchNoted(url, init) {
  const response = await fetch(url, init);
  observed.requests.push(`${init?.method ?? 'GET'} ${new URL(url).pathname} ${response.status}`);
  return response;
}

const count = (line) => observed.requests.filter((request) => request === line).length;

const cookies = new Map();

/** What a browser does from the authorization request on; returns the parameters of the redirect back. */
async function browse(url) {
  while (!String(url).startsWith(`${REDIRECT}?`)) {
    const cookie = [...cookies].map((pair) => pair.join('=')).join('; ');
    const response = await fetch(url, { redirect: 'manual', headers: { cookie } });
    for (const line of response.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
      cookies.set(name, value);
    }
    const location = response.headers.get('location');
    if (!location) throw new Error(`the browser is stuck at ${url}: ${response.status} ${await response.text()}`);
    url = new URL(location, url);
  }
  return url.searchParams;
}

/** An OAuthClientProvider that keeps everything in memory and has a browser of its own. */
const user = {
  redirectUrl: REDIRECT,
  clientMetadata: {
    client_name: 'oauth-client',
    redirect_uris: [REDIRECT],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    token_endpoint_auth_method: 'none',
  },
  state: () => (user.sentState = randomUUID()),
  clientInformation: () => user.client,
  saveClientInformation: (client) => void (user.client = client),
  tokens: () => user.token,
  saveTokens: (token) => void observed.granted.push((user.token = token).scope),
  codeVerifier: () => user.verifier,
  saveCodeVerifier: (verifier) => void (user.verifier = verifier),
  discoveryState: () => user.discovered,
  saveDiscoveryState: (state) => void (user.discovered = state),
  async redirectToAuthorization(url) {
    observed.authorizations.push(url.searchParams.get('scope'));
    observed.resource = url.searchParams.get('resource');
    user.callback = await browse(url);
    expect('state', user.callback.get('state'), user.sentState);
  },
};

/** Runs an action that the server refuses; the SDK takes the user to the authorization server, and this through it. */
async function authorizedDuring(action, transport) {
  const before = observed.authorizations.length;
  const error = await action().then(() => new Error('it was not refused'), (thrown) => thrown);
  if (!(error instanceof UnauthorizedError)) throw error;
  expect('authorizations', observed.authorizations.length - before, 1);
  await transport.finishAuth(user.callback);
}

/** A client that is not connected yet, and its transport; each connects only once. */
function open({ url, era }) {
  const client = new Client({ name: 'oauth-client', version: '2.4.0' }, { versionNegotiation: { mode: MODES[era] ?? 'auto' } });
  return { client, transport: new StreamableHTTPClientTransport(url, { authProvider: user, fetch: fetchNoted }) };
}

async function reach(options) {
  const first = open(options);
  await authorizedDuring(() => first.client.connect(first.transport), first.transport);
  expect('401s', count(`POST ${options.url.pathname} 401`), 1);

  const { client, transport } = open(options);
  await client.connect(transport);
  observed.protocol_version = client.getNegotiatedProtocolVersion();
  observed.tools = (await client.listTools()).tools.map((tool) => tool.name);
  observed.read = await answer(client, options.read);
  return { client, transport };
}

async function stepUp(options) {
  const { client, transport } = await reach(options);
  await authorizedDuring(() => client.callTool(options.write), transport);
  expect('403s', count(`POST ${options.url.pathname} 403`), 1);
  observed.write = await answer(client, options.write);
  expect('authorizations', observed.authorizations.length, 2);
  return { client };
}

async function answer(client, call) {
  const { isError, content } = await client.callTool(call);
  if (isError) throw new Error(`${call.name}: ${content[0]?.text}`);
  return content[0].text;
}

/** 'name:{"argument":1}' as the parameters of a call */
function parseCall(text) {
  const [, name, json] = /^([^:]+)(?::(.*))?$/s.exec(text);
  return { name, arguments: JSON.parse(json ?? '{}') };
}

function report(scenario, error) {
  console.log(JSON.stringify({ scenario, ok: !error, observed, error }));
  process.exit(error ? 1 : 0); // whatever streams are still open
}

const scenarios = { reach, step_up: stepUp };
const { values } = parseArgs({
  options: {
    url: { type: 'string' },
    era: { type: 'string' }, // legacy or modern; without it the SDK's own default
    scenario: { type: 'string' },
    'read-tool': { type: 'string', default: 'echo:{"text":"hello"}' },
    'write-tool': { type: 'string', default: 'add:{"a":2,"b":3}' },
  },
});
const { url, era, scenario } = values;
if (!url || !Object.hasOwn(scenarios, scenario) || ![undefined, 'legacy', 'modern'].includes(era)) {
  console.error('usage: --url URL [--era legacy|modern] --scenario reach|step_up [--read-tool NAME:JSON] [--write-tool NAME:JSON]');
  process.exit(2);
}
setTimeout(() => report(scenario, `no end within ${DEADLINE / 1000} s`), DEADLINE);
try {
  const [read, write] = [values['read-tool'], values['write-tool']].map(parseCall);
  const { client } = await scenarios[scenario]({ url: new URL(url), era, read, write });
  await client.close();
} catch (error) {
  report(scenario, `${error.name}: ${error.message}`);
}
report(scenario);
