// The official demo server (@modelcontextprotocol/server-everything 2026.8.31), legacy with
// sessions, started the way the other test servers are.
//
//   .parts/bin/node tests/parts/servers/server_everything.mjs --port 0 [--sse]
//
// Streamable HTTP at /mcp, or with --sse the HTTP+SSE transport of 2024-11-05 at /sse, whose
// first event names the URI to POST to. As a stdio server: node …/server-everything/dist/index.js stdio
//
// By itself it listens on every interface and chats on stdout, hence the two patches.
import { Server } from 'node:net';
import { pathToFileURL } from 'node:url';
import { part } from '../resolve.mjs';

const at = process.argv.indexOf('--port');
const port = at < 0 ? 0 : Number(process.argv[at + 1]);

const { log } = console;
console.log = console.error; // stdout carries the ready line only

const listen = Server.prototype.listen;
Server.prototype.listen = function (_, listening) {
  return listen.call(this, port, '127.0.0.1', () => {
    log('ready', this.address().port);
    listening?.();
  });
};
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0));

process.argv[2] = process.argv.includes('--sse') ? 'sse' : 'streamableHttp';
await import(pathToFileURL(part.resolve('@modelcontextprotocol/server-everything/dist/index.js')));
