// Uses the operator's page in Chromium as an engineer would, and says what it saw, line by line.
// Usage: node admin_page.mjs SCENARIO ORIGIN [VALUE …]
import { fileURLToPath } from "node:url";
import path from "node:path";
import { createRequire } from "node:module";

const here = path.dirname(fileURLToPath(import.meta.url));
const parts = process.env.MCP_PARTS_DIR ?? path.join(here, "../../.parts");
const { chromium } = createRequire(path.join(parts, "npm/package.json"))("playwright-core");

const [scenario, origin, ...values] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const faults = [];

async function open(options = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  page.on("pageerror", (error) => faults.push(`page error: ${error}`));
  page.on("dialog", (dialog) => {
    faults.push(`a dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on("console", (message) => {
    // Chromium tells of every answer above 399; that of the door is meant to be 401.
    const isDoor = message.text().includes("401") && /\/admin\/(login)?$/.test(message.location().url);
    if (["error", "warning"].includes(message.type()) && !isDoor) faults.push(`console: ${message.text()} ${message.location().url}`);
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(`${origin}/`) && !request.url().startsWith("data:")) faults.push(`a request elsewhere: ${request.url()}`);
  });
  await page.goto(`${origin}/admin/`);
  return page;
}

function expect(is, what) {
  if (!is) throw new Error(`not so: ${what}`);
}

/** Waits until a part of the page says so. */
async function says(page, selector, text) {
  await page.locator(selector).filter({ hasText: text }).first().waitFor();
}

const scenarios = {
  /** VALUE: a backend that goes down when this says that it watches. */
  async watch([backend]) {
    const page = await open();
    const row = page.locator("#backends-table tbody tr", { hasText: backend });
    await row.getByText("healthy", { exact: true }).waitFor();
    console.log("watching");
    await row.getByText("unhealthy", { exact: true }).waitFor();
    await says(page, "#notices .problem", `backend ${backend} fails its health checks`);
    await page.waitForFunction(() => document.title.startsWith("unhealthy"));
    console.log("saw it down");
    await row.getByText("healthy", { exact: true }).waitFor();
    await page.waitForFunction(() => document.title.startsWith("healthy"));
  },

  /** VALUES: a key that may call `echo`, and a secret to say. */
  async playground([key, secret]) {
    const page = await open();
    await page.locator("#try-list").click();
    await says(page, "#try-said", "401 unauthorized");
    await page.locator("#try-credential").fill(key);
    await page.locator("#try-list").click();
    await page.locator("#try-call").waitFor();
    expect((await page.locator("#try-tool option").allInnerTexts()).join() === "echo", "only what the caller may use is offered");
    await page.getByLabel("text required string").fill(secret);
    await page.getByLabel("times integer").fill("12345678901234567890");
    expect((await page.locator("#try-json").inputValue()).includes(`"text": ${JSON.stringify(secret)}`), "the form writes the JSON");
    await page.getByLabel("times integer").fill("many");
    await says(page, "#try-said", "times: not JSON");
    await page.getByLabel("times integer").fill("12345678901234567890");
    await page.locator("#try-go").click();
    await says(page, "#try-answer", "Status 200");
    const answer = await page.locator("#try-answer").innerText();
    for (const part of ["Backend one", "Cached no", "Request id", " ms", secret]) expect(answer.includes(part), `${part} in ${answer}`);
    await says(page, "#refusals-table", "a credential is required");
    const all = await page.evaluate(() => [document.documentElement.outerHTML, JSON.stringify(localStorage), document.cookie, location.href].join());
    expect(!all.includes(key), "the key is nowhere but in its field");
    const refusals = await page.locator("#refusals-table").innerText();
    expect(!refusals.includes(secret), "no arguments among refusals");
  },

  /** VALUES: a token whose subject is hostile, and that subject; a server whose tool, description and schema are. */
  async hostile([token, subject]) {
    const page = await open();
    await says(page, "#servers-table", "<script>window.owned=1</script>");
    await says(page, "#refusals-table", subject);
    await page.locator("#try-header").selectOption("authorization");
    await page.locator("#try-credential").fill(token);
    await page.locator("#try-list").click();
    await page.locator("#try-call").waitFor();
    await says(page, "#try-about", "<img src=x onerror=window.owned=2>");
    await page.locator("#try-form input").fill("<svg onload=window.owned=3>");
    await page.locator("#try-go").click();
    await says(page, "#try-answer", "<svg onload=window.owned=3>");
    // Renewed at least once with all of it.
    await page.evaluate(() => new Promise((seen) => new MutationObserver(seen).observe(document.body, { childList: true, subtree: true })));
    const made = await page.evaluate(() => [window.owned, document.images.length, document.scripts.length, document.querySelectorAll("svg").length].join());
    expect(made === ",0,1,2", `nothing of it became markup: ${made}`);
  },

  /** VALUE: the admin token. */
  async login([token]) {
    const page = await open();
    expect(!(await page.content()).includes("Backends"), "the door tells nothing");
    await page.getByLabel("Admin token").fill("wrong");
    await page.getByRole("button", { name: "Sign in" }).click();
    await says(page, "[role=alert]", "not the admin token");
    await page.getByLabel("Admin token").fill(token);
    await page.getByLabel("Admin token").press("Enter");
    await says(page, "#backends-table", "one");
    expect(page.url() === `${origin}/admin/`, page.url());
    expect((await page.evaluate(() => document.cookie)) === "", "no script reads the cookie");
    await page.waitForFunction(() => document.querySelector("#live")?.textContent === "Live");
    await page.getByRole("button", { name: "Drain backend one" }).click();
    await page.getByRole("button", { name: "Undrain backend one" }).waitFor();
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByLabel("Admin token").waitFor();
  },

  async plain() {
    const page = await open({ javaScriptEnabled: false });
    await says(page, "#backends-table", "one");
    await says(page, "#refusals-table", "no backend serves");
    await says(page, "#playground", "needs JavaScript");
    expect((await page.locator("svg path").count()) >= 7, "the charts are drawn");
    await page.getByRole("button", { name: "Drain backend one" }).click();
    await says(page, "#backends-table", "draining");
    await page.getByRole("button", { name: "Undrain backend one" }).click();
    await page.getByRole("button", { name: "Drain backend one" }).waitFor();
    await page.getByText("Purge…").click();
    await page.getByRole("button", { name: "Purge everything" }).click();
    await says(page, "#cache", "Nothing is kept.");
    const wide = await open({ viewport: { width: 360, height: 700 } });
    const width = await wide.evaluate(() => document.documentElement.scrollWidth);
    expect(width <= 360, `it fits a phone: ${width}`);
  },
};

let failed = false;
try {
  await scenarios[scenario](values);
  if (faults.length) throw new Error(faults.join("\n"));
  console.log("all is well");
} catch (error) {
  failed = true;
  console.error(error);
  if (faults.length) console.error(faults.join("\n"));
} finally {
  await browser.close();
}
process.exit(failed ? 1 : 0);
