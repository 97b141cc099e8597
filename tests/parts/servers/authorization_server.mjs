// A real OAuth 2.1 authorization server (oidc-provider 9.13.3) for a resource server under test.
//
//   .parts/bin/node tests/parts/servers/authorization_server.mjs --port 0 [--opaque]
//
// The issuer is http://127.0.0.1:<port>; its metadata is at both /.well-known/oauth-authorization-server
// and /.well-known/openid-configuration. Anyone may register, PKCE is required, and no human is:
// every authorization request is answered by the account `alice`, who grants what it asks for.
// Access tokens are for the resource that was asked for (RFC 8707): JWTs signed ES256, or with
// --opaque random strings, which /token/introspection then explains to the client `gateway`
// (client_secret_basic, `gateway-secret`). That client may also revoke any opaque token.
//
//   POST /test/token {"scope":…,"resource":…,"sub":…} → {"access_token":…}, without the flow
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { json } from 'node:stream/consumers';
import { part } from '../resolve.mjs';
import { listen } from './listen.mjs';

console.info = console.warn = () => {}; // its notices that this is no production setup, on stdout too
const { Provider } = part('oidc-provider');

const SCOPES = ['mcp:read', 'mcp:write'];
const opaque = process.argv.includes('--opaque');

const configuration = {
  scopes: [...SCOPES, 'openid', 'offline_access'],
  jwks: { keys: [generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' })] },
  clients: [
    { client_id: 'gateway', client_secret: 'gateway-secret', grant_types: [], response_types: [], redirect_uris: [] },
    { client_id: 'tester', token_endpoint_auth_method: 'none', grant_types: [], response_types: [], redirect_uris: [] },
  ],
  clientDefaults: { id_token_signed_response_alg: 'ES256' },
  responseTypes: ['code'],
  pkce: { required: () => true },
  findAccount: (_, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
  extraTokenClaims: () => ({ org: 'acme', plan: 'standard' }),
  ttl: { Session: 3600, Grant: 3600, Interaction: 60, AuthorizationCode: 60, RefreshToken: 3600, IdToken: 300 },
  features: {
    devInteractions: { enabled: false },
    introspection: { enabled: opaque, allowedPolicy: (_, client) => client.clientId === 'gateway' },
    revocation: { enabled: true, allowedPolicy: (_, client, token) => ['gateway', token.clientId].includes(client.clientId) },
    registration: {
      enabled: true,
      // The MCP SDK registers with the scope of its first challenge and would be held to it when it
      // steps up; RFC 7591 lets the server decide, and this one lets a client ask for any.
      idFactory: (ctx) => (delete ctx.oidc.body.scope, randomUUID()),
    },
    resourceIndicators: { enabled: true, useGrantedResource: () => true, getResourceServerInfo: (_, audience) => resource(audience) },
  },
};

const resource = (audience) => ({
  audience,
  scope: SCOPES.join(' '),
  accessTokenTTL: 300,
  accessTokenFormat: opaque ? 'opaque' : 'jwt',
  jwt: { sign: { alg: 'ES256' } },
});

/** Ends the interaction a browser was sent to as its user would: logs in, or grants what is missing. */
async function interact(provider, { req, res }) {
  const { prompt, params, session, grantId } = await provider.interactionDetails(req, res);
  if (prompt.name === 'login') return provider.interactionResult(req, res, { login: { accountId: 'alice' } });
  const { missingOIDCScope = [], missingResourceScopes = {} } = prompt.details;
  const grant = grantId
    ? await provider.Grant.find(grantId)
    : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  if (missingOIDCScope.length) grant.addOIDCScope(missingOIDCScope);
  for (const [indicator, scopes] of Object.entries(missingResourceScopes)) grant.addResourceScope(indicator, scopes);
  return provider.interactionResult(req, res, { consent: { grantId: await grant.save() } });
}

async function mint(provider, { scope, resource: audience, sub }) {
  return new provider.AccessToken({
    accountId: sub,
    scope,
    client: await provider.Client.find('tester'),
    resourceServer: new provider.ResourceServer(audience, resource(audience)),
  }).save();
}

const server = createServer();
server.on('listening', () => {
  const provider = new Provider(`http://127.0.0.1:${server.address().port}`, configuration);
  provider.use(async (ctx, next) => {
    if (ctx.path.startsWith('/interaction/')) ctx.redirect(await interact(provider, ctx));
    else if (ctx.path === '/test/token') ctx.body = { access_token: await mint(provider, await json(ctx.req)) };
    else await next();
  });
  provider.on('server_error', (_, error) => console.error(error));
  server.on('request', provider.callback());
});
listen(server);
