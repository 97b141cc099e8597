// The scenarios of both TypeScript clients, the same as those of python_client.py. A client file
// passes `open`, which connects its SDK and returns the few calls used here:
//
//   open({ url, era, headers, on }) -> { version, tools(), call(name, args, options), resources(),
//     templates(), read(uri), prompts(), prompt(name, args), logLevel(level), watch(uri), close() }
//
// `on` holds the callbacks for what the server sends: elicit, sample, log, updated.
// Prints {"scenario":…,"ok":true,"observed":{…}} and exits 0 only when all was as expected.
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual, parseArgs } from 'node:util';

const DEADLINE = 10_000;
const NOTE = 'note://shared';

const observed = {};
const on = {};

function expect(name, seen, wanted) {
  observed[name] = seen;
  if (!isDeepStrictEqual(seen, wanted)) throw new Error(`${name}: ${JSON.stringify(seen)}, not ${JSON.stringify(wanted)}`);
}

const textOf = (result) => result.content[0].text;

const scenarios = {
  async tools(client, prefix) {
    const listed = (await client.tools()).map((tool) => tool.name);
    const names = listed.filter((name) => name.startsWith(prefix)).map((name) => name.slice(prefix.length));
    observed.tools = names.length;
    expect('listed', names.filter((name) => ['add', 'echo'].includes(name)).sort(), ['add', 'echo']);
    expect('echo', textOf(await client.call('echo', { text: 'héllo' })), 'héllo');
    expect('sum', (await client.call('add', { a: 2, b: 3 })).structuredContent.sum, 5);
    if (names.includes('route')) // has an x-mcp-header parameter; non-ASCII travels encoded
      expect('route', textOf(await client.call('route', { region: 'zürich' })), 'zürich');
    if (names.includes('fail')) expect('fail', (await client.call('fail')).isError, true);
  },

  async progress(client) {
    const steps = [];
    const result = await client.call('slow', { ms: 200 }, { onprogress: ({ progress }) => steps.push(progress) });
    expect('result', textOf(result), 'slept 200 ms');
    expect('progress', steps, [1, 2, 3, 4]);
  },

  async logging(client) {
    const lines = [];
    on.log = ({ level, logger, data }) => lines.push(`${level} ${logger}: ${data}`);
    await client.logLevel('info');
    expect('result', textOf(await client.call('slow', { ms: 200 })), 'slept 200 ms');
    expect('log', lines, [1, 2, 3, 4].map((step) => `info slow: step ${step} of 4`));
  },

  async elicitation(client) {
    on.elicit = ({ message }) => ((observed.question = message), { action: 'accept', content: { name: 'Ada' } });
    expect('result', textOf(await client.call('ask')), 'Hello, Ada!');
    expect('question', observed.question, 'What is your name?');
  },

  async sampling(client) {
    on.sample = ({ messages }) => {
      observed.prompt = [messages[0].content].flat()[0].text;
      return { role: 'assistant', model: 'none', content: { type: 'text', text: 'blue' } };
    };
    expect('result', textOf(await client.call('sample', { prompt: 'a colour' })), 'the model said: blue');
    expect('prompt', observed.prompt, 'a colour');
  },

  async subscribe(client) {
    on.updated = ({ uri }) => void (observed.updated = uri);
    await client.watch(NOTE);
    // The session's GET stream may not be open yet, and what is sent before it is lost.
    while (observed.updated === undefined) {
      await client.call('touch');
      await sleep(300);
    }
    expect('updated', observed.updated, NOTE);
  },

  async cancel(client) {
    const count = async () => (await client.call('cancelled')).structuredContent.count;
    const before = await count();
    const started = Date.now();
    const call = client.call('slow', { ms: 60_000 }, { signal: AbortSignal.timeout(500) });
    expect('call_ended', await call.then(() => false, () => true), true);
    let after = await count();
    for (; after === before && Date.now() < started + 5000; after = await count()) await sleep(50);
    expect('cancelled_upstream', after - before, 1);
  },

  async resources(client) {
    expect('listed', (await client.resources()).some(({ uri }) => uri === 'memo://static'), true);
    expect('read', (await client.read('memo://static')).contents[0].text, 'a static memo');
    if ((await client.templates()).some(({ uriTemplate }) => uriTemplate === 'city://{name}'))
      expect('template', (await client.read('city://Bern')).contents[0].text, 'about Bern');
  },

  async prompts(client, prefix) {
    const name = `${prefix}greet`;
    expect('listed', (await client.prompts()).some((prompt) => prompt.name === name), true);
    const { messages } = await client.prompt(name, { name: 'Ada' });
    expect('prompt', messages[0].content.text, 'Please greet Ada.');
  },
};

function report(scenario, error) {
  console.log(JSON.stringify({ scenario, ok: !error, observed, error }));
  process.exit(error ? 1 : 0); // whatever streams are still open
}

/** Runs the scenario named on the command line: --url --scenario [--era] [--prefix] [--header 'Name: value']… */
export async function main(open) {
  const { values } = parseArgs({
    options: {
      url: { type: 'string' },
      era: { type: 'string' }, // legacy or modern; without it the SDK's own default
      scenario: { type: 'string' },
      prefix: { type: 'string', default: '' },
      header: { type: 'string', multiple: true, default: [] },
    },
  });
  const { url, era, scenario, prefix } = values;
  if (!url || !Object.hasOwn(scenarios, scenario) || ![undefined, 'legacy', 'modern'].includes(era)) {
    console.error(`usage: --url URL [--era legacy|modern] --scenario ${Object.keys(scenarios).join('|')}`);
    process.exit(2);
  }
  const headers = Object.fromEntries(values.header.map((line) => [line.split(':')[0].trim(), line.slice(line.indexOf(':') + 1).trim()]));
  setTimeout(() => report(scenario, `no end within ${DEADLINE / 1000} s`), DEADLINE);
  try {
    const client = await open({ url: new URL(url), era, headers, on });
    observed.protocol_version = client.version;
    const prefixed = { ...client, call: (name, args = {}, options = {}) => client.call(prefix + name, args, options) };
    await scenarios[scenario](prefixed, prefix);
    await client.close();
  } catch (error) {
    report(scenario, `${error.name}: ${error.message}`);
  }
  report(scenario);
}
