// The operator's page, alive: renews what the server rendered, and calls tools. Nothing a server or caller wrote becomes
// markup here: fragments come escaped from the gateway, everything else is set as text.
"use strict";

const EVERY = 2000;
const byId = (id) => document.getElementById(id);

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// ---- Renewal: the page is fetched as anybody would, and what lives is taken from it.

const live = byId("live");
const pause = byId("pause");
let paused = false;
let timer;

function renew(fresh) {
  for (const old of document.querySelectorAll("[data-live]")) {
    const now = fresh.getElementById(old.id);
    if (now) replace(old, now);
  }
  document.title = fresh.title;
  const csrf = fresh.getElementById("csrf");
  if (csrf) {
    byId("csrf").dataset.csrf = csrf.dataset.csrf;
    for (const field of document.querySelectorAll("input[name=csrf]")) field.value = csrf.dataset.csrf;
  }
  offer([...fresh.querySelectorAll("#try-server option")].map((option) => option.value));
}

// Focus, what is unfolded and how far it is scrolled stay as they are; what somebody marked waits until it is copied.
function replace(old, now) {
  const marked = getSelection();
  if (old.innerHTML === now.innerHTML || (!marked.isCollapsed && old.contains(marked.anchorNode))) return;
  const focus = old.contains(document.activeElement) ? document.activeElement : null;
  const key = focus && (focus.getAttribute("aria-label") ?? (focus.id || focus.textContent));
  const unfolded = new Map([...old.querySelectorAll("details[data-key]")].map((one) => [one.dataset.key, one.open]));
  old.replaceChildren(...now.childNodes);
  for (const one of old.querySelectorAll("details[data-key]")) {
    if (unfolded.has(one.dataset.key)) one.open = unfolded.get(one.dataset.key);
  }
  if (!focus) return;
  const same = (one) => (one.getAttribute("aria-label") ?? (one.id || one.textContent)) === key;
  [...old.querySelectorAll("a, button, summary")].find(same)?.focus({ preventScroll: true });
}

function say(text, lost = false) {
  if (live.textContent !== text) live.textContent = text;
  live.classList.toggle("lost", lost);
}

async function tick() {
  if (!paused && !document.hidden) {
    try {
      const answer = await fetch("/admin/", { cache: "no-store", redirect: "error" });
      if (answer.status === 401) {
        say("Signed out.", true);
        live.append(" ", make("a", { href: "/admin/", textContent: "Sign in" }));
        return;
      }
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      renew(new DOMParser().parseFromString(await answer.text(), "text/html"));
      say("Live");
    } catch {
      const shown = document.querySelector("#standing time")?.textContent ?? "";
      say(`Not answering; this is as of ${shown}`, true);
    }
  }
  timer = setTimeout(tick, EVERY);
}

pause.hidden = false;
pause.addEventListener("click", () => {
  paused = !paused;
  pause.textContent = paused ? "Go on" : "Pause";
  pause.setAttribute("aria-pressed", String(paused));
  if (paused) say("Paused");
  else {
    clearTimeout(timer);
    tick();
  }
});
say("Live");
timer = setTimeout(tick, EVERY);

// ---- The playground.

const form = byId("try");
const server = byId("try-server");
const tool = byId("try-tool");
const json = byId("try-json");
const fields = byId("try-form");
const answered = byId("try-answer");
const said = byId("try-said");
let tools = [];
// A late answer must not stand in the place of a newer one.
let turn = 0;

byId("without").hidden = true;
form.hidden = false;

function offer(names) {
  const known = [...server.options].map((option) => option.value);
  if (known.join("\n") === names.join("\n")) return;
  const chosen = server.value;
  server.replaceChildren(...names.map((name) => make("option", { value: name, textContent: name })));
  if (names.includes(chosen)) server.value = chosen;
}

// The text of the request is sent as it was written: numbers keep their digits.
async function call(request) {
  const header = byId("try-header").value;
  const value = byId("try-credential").value;
  const credential = header && value ? `,"credential":${JSON.stringify({ header, value })}` : "";
  const answer = await fetch("/admin/try", {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": byId("csrf").dataset.csrf },
    body: `{"server":${JSON.stringify(server.value)},"request":${request}${credential}}`,
  });
  const told = await answer.json();
  if (!answer.ok) throw new Error(`${told.code}: ${told.detail}`);
  return told;
}

function read(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

async function list() {
  const mine = ++turn;
  byId("try-call").hidden = true;
  answered.hidden = true;
  said.className = "said";
  said.textContent = `Asking ${server.value} for its tools…`;
  try {
    const told = await call('{"method":"list_tools"}');
    if (mine !== turn) return;
    const body = read(told.body);
    if (told.status !== 200) {
      said.className = "said refused";
      said.textContent = `Refused: ${told.status} ${body?.code ?? ""}. ${body?.detail ?? ""}`;
      return;
    }
    tools = Array.isArray(body?.result) ? body.result : [];
    tool.replaceChildren(...tools.map((one, at) => make("option", { value: String(at), textContent: String(one.name) })));
    said.textContent = tools.length ? "" : "This caller sees no tools here.";
    byId("try-call").hidden = tools.length === 0;
    if (tools.length) choose();
  } catch (error) {
    if (mine !== turn) return;
    said.className = "said failed";
    said.textContent = String(error.message);
  }
}

// ---- A form from the tool's schema. What is sent is always the text beside it.

function choose() {
  const chosen = tools[Number(tool.value)] ?? {};
  byId("try-about").textContent = String(chosen.description ?? "");
  const schema = chosen.inputSchema ?? {};
  const required = Array.isArray(schema.required) ? schema.required : [];
  const inputs = Object.entries(schema.properties ?? {}).map(([name, property]) => field(name, property ?? {}, required.includes(name)));
  const rows = inputs.map((input) => input.label);
  const none = make("p", { className: "hint", textContent: "This tool takes none." });
  fields.replaceChildren(fields.firstElementChild, ...(rows.length ? rows : [none]));
  fields.inputs = inputs;
  write();
}

function field(name, property, required) {
  const type = Array.isArray(property.type) ? property.type.find((one) => one !== "null") : property.type;
  const input = control(type, property);
  const note = make("small", { textContent: ` ${describe(type, property)}` });
  const label = make("label", {}, name, ...(required ? [" ", make("em", { textContent: "required" })] : []), note, input);
  if (property.default !== undefined) fill(input, property.default);
  input.addEventListener("input", write);
  return { name, type, input, label, required };
}

function control(type, property) {
  if (Array.isArray(property.enum)) return choice(property.enum);
  if (type === "boolean") return choice([true, false]);
  if (type === "object" || type === "array") return make("textarea", { rows: 2, placeholder: type === "array" ? "[…]" : "{…}" });
  return make("input", { type: "text", inputMode: type === "number" || type === "integer" ? "decimal" : "text", autocomplete: "off" });
}

function choice(values) {
  const option = (value) => make("option", { value: JSON.stringify(value), textContent: String(value) });
  return make("select", {}, make("option", { value: "", textContent: "–" }), ...values.map(option));
}

function fill(input, value) {
  input.value = input.tagName === "INPUT" && typeof value === "string" ? value : JSON.stringify(value);
}

function describe(type, property) {
  return [type, property.description].filter(Boolean).map(String).join(" · ");
}

// The JSON of a field; undefined where nothing was given.
function written({ type, input, required }) {
  const text = input.value;
  input.removeAttribute("aria-invalid");
  if (input.tagName === "SELECT") return text || undefined;
  if (input.tagName === "INPUT" && (type === "string" || type === undefined)) {
    return text || (required && type === "string") ? JSON.stringify(text) : undefined;
  }
  if (!text.trim()) return undefined;
  if (read(text) === undefined) {
    input.setAttribute("aria-invalid", "true");
    return JSON.stringify(text);
  }
  return text.trim();
}

function write() {
  const members = (fields.inputs ?? []).map((input) => [input.name, written(input)]).filter(([, value]) => value !== undefined);
  const lines = members.map(([name, value]) => `  ${JSON.stringify(name)}: ${value}`);
  json.value = lines.length ? `{\n${lines.join(",\n")}\n}` : "{}";
  json.removeAttribute("aria-invalid");
  const wrong = (fields.inputs ?? []).filter(({ input }) => input.hasAttribute("aria-invalid")).map(({ name }) => name);
  said.className = "said refused";
  said.textContent = wrong.length ? `${wrong.join(", ")}: not JSON, and so sent as text.` : "";
}

json.addEventListener("input", () => json.setAttribute("aria-invalid", String(read(json.value) === undefined)));

async function go() {
  const mine = ++turn;
  const name = tools[Number(tool.value)]?.name;
  if (read(json.value) === undefined) {
    json.setAttribute("aria-invalid", "true");
    said.className = "said failed";
    said.textContent = "The arguments are not JSON.";
    json.focus();
    return;
  }
  const button = byId("try-go");
  button.disabled = true;
  said.className = "said";
  said.textContent = `Calling ${name}…`;
  try {
    const told = await call(`{"method":"call_tool","params":{"tool_name":${JSON.stringify(name)},"arguments":${json.value}}}`);
    if (mine !== turn) return;
    said.textContent = "";
    show(told);
  } catch (error) {
    if (mine !== turn) return;
    said.className = "said failed";
    said.textContent = String(error.message);
  } finally {
    button.disabled = false;
  }
}

// ---- The answer.

function show(told) {
  const body = read(told.body);
  const met = make("div", { className: "met" });
  const fact = (what, value, className = "") => met.append(make("span", {}, `${what} `, make("b", { textContent: String(value), className })));
  fact("Status", `${told.status}${body?.code ? ` ${body.code}` : ""}`, told.status < 400 ? "" : "failed");
  if (body?.isError) fact("Tool", "reports an error", "failed");
  fact("Time", `${(told.seconds * 1000).toFixed(1)} ms`);
  if (body?.backend !== undefined) fact("Backend", body.backend);
  if (body?.cached !== undefined) fact("Cached", body.cached ? "yes" : "no");
  fact("Request id", told.request_id);
  for (const [name, value] of told.headers) fact(name, value);
  const parts = told.status === 200 && Array.isArray(body?.result) ? body.result.map(content) : [];
  if (body?.structuredContent !== undefined) parts.push(pre(JSON.stringify(body.structuredContent, null, 2), "structuredContent"));
  if (told.status !== 200 && body?.detail) parts.push(make("p", { textContent: String(body.detail) }));
  const whole = make("details", {}, make("summary", { textContent: "The whole answer, as it came" }), make("pre", { textContent: told.body }));
  whole.open = parts.length === 0;
  answered.replaceChildren(met, ...parts, whole);
  answered.hidden = false;
}

function content(part) {
  if (part?.type === "text") return pre(String(part.text));
  const image = /^image\/(png|jpeg|gif|webp)$/.test(part?.mimeType) && /^[A-Za-z0-9+/=]+$/.test(part?.data);
  if (part?.type === "image" && image) return make("img", { src: `data:${part.mimeType};base64,${part.data}`, alt: "the tool's image" });
  return pre(JSON.stringify(part, null, 2));
}

function pre(text, label) {
  const block = make("pre", { textContent: text, tabIndex: 0 });
  if (label) block.setAttribute("aria-label", label);
  return block;
}

byId("try-list").addEventListener("click", list);
server.addEventListener("change", list);
tool.addEventListener("change", choose);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (byId("try-call").hidden) list();
  else go();
});
