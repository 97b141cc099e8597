// What both TypeScript test servers share: `--port N` on loopback, the ready line, the stop,
// and a bridge from node:http to the fetch-style handlers of the SDK.
import { Readable } from 'node:stream';

/** Listens on 127.0.0.1 at --port (0: any free one) and prints `ready <port>`. */
export function listen(server) {
  const at = process.argv.indexOf('--port');
  const port = at < 0 ? 0 : Number(process.argv[at + 1]);
  server.listen(port, '127.0.0.1', () => console.log('ready', server.address().port));
  for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0));
}

/** A node:http listener for a `(Request) => Promise<Response>`; a client that leaves aborts the request. */
export function bridge(handle) {
  return async (incoming, outgoing) => {
    const left = new AbortController();
    outgoing.on('close', () => left.abort());
    try {
      const hasBody = !['GET', 'HEAD', 'DELETE'].includes(incoming.method);
      const request = new Request(new URL(incoming.url, `http://${incoming.headers.host ?? 'localhost'}`), {
        method: incoming.method,
        headers: Object.entries(incoming.headers).flatMap(([name, value]) => [value].flat().map((v) => [name, v])),
        body: hasBody ? Readable.toWeb(incoming) : undefined,
        duplex: 'half',
        signal: left.signal,
      });
      const response = await handle(request);
      outgoing.writeHead(response.status, Object.fromEntries(response.headers));
      outgoing.flushHeaders(); // a stream's headers do not wait for its first event
      for await (const chunk of response.body ?? []) outgoing.write(chunk);
      outgoing.end();
    } catch (error) {
      if (!left.signal.aborted) console.error(error);
      if (!outgoing.headersSent) outgoing.writeHead(500);
      outgoing.end();
    }
  };
}
